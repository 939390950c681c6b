"""The method's own hooks: one number or one duty each; they reach the model by attributes only."""

from s3pt_mm.method.hooks.backbone_freeze import BackboneFreezeHook
from s3pt_mm.method.hooks.last_layer_freeze import LastLayerFreezeHook
from s3pt_mm.method.hooks.method_schedule import MethodScheduleHook
from s3pt_mm.method.hooks.teacher_update import TeacherUpdateHook
from s3pt_mm.method.hooks.training_log import TrainingLogHook

__all__ = [
    'BackboneFreezeHook',
    'LastLayerFreezeHook',
    'MethodScheduleHook',
    'TeacherUpdateHook',
    'TrainingLogHook',
]
