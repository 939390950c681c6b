"""Losses: tensors in, scalars out."""

from s3pt_mm.method.losses.centering import Center
from s3pt_mm.method.losses.image_loss import image_target
from s3pt_mm.method.losses.object_loss import cross_image_target, cross_view_target
from s3pt_mm.method.losses.prototype_logits import PrototypeLogits
from s3pt_mm.method.losses.sliced_cross_entropy import CrossEntropy, sliced_cross_entropy
from s3pt_mm.method.losses.target import Target
from s3pt_mm.method.losses.vmf import vmf_log_normalizer

__all__ = [
    'Center',
    'CrossEntropy',
    'PrototypeLogits',
    'Target',
    'cross_image_target',
    'cross_view_target',
    'image_target',
    'sliced_cross_entropy',
    'vmf_log_normalizer',
]
