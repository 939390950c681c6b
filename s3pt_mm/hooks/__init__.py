"""Hooks: one number or one duty each; they reach the model by attributes only."""

from s3pt_mm.hooks.divergence import DivergenceHook
from s3pt_mm.hooks.knn_probe import KnnProbeHook
from s3pt_mm.hooks.last_layer_freeze import LastLayerFreezeHook
from s3pt_mm.hooks.method_schedule import MethodScheduleHook
from s3pt_mm.hooks.safe_checkpoint import SafeCheckpointHook
from s3pt_mm.hooks.teacher_update import TeacherUpdateHook
from s3pt_mm.hooks.training_log import TrainingLogHook

__all__ = [
    'DivergenceHook',
    'KnnProbeHook',
    'LastLayerFreezeHook',
    'MethodScheduleHook',
    'SafeCheckpointHook',
    'TeacherUpdateHook',
    'TrainingLogHook',
]
