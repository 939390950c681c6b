"""Going on exactly: keyed sampling, exact loops, whole checkpoints, divergence.

Import this room through ``custom_imports``.
"""

from s3pt_mm.resume.divergence import DivergenceHook
from s3pt_mm.resume.exact_loops import ExactEpochTrainLoop, ExactIterTrainLoop
from s3pt_mm.resume.keyed_sampler import KeyedIndex, KeyedSampler
from s3pt_mm.resume.safe_checkpoint import SafeCheckpointHook
from s3pt_mm.resume.seeding import SeedFromIndex

__all__ = [
    'DivergenceHook',
    'ExactEpochTrainLoop',
    'ExactIterTrainLoop',
    'KeyedIndex',
    'KeyedSampler',
    'SafeCheckpointHook',
    'SeedFromIndex',
]
