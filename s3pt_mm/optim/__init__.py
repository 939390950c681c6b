"""Parameter groups and gradient clipping of the pre-training recipes."""

from s3pt_mm.optim.param_groups import PretrainOptimConstructor, clip_each_tensor

__all__ = ['PretrainOptimConstructor', 'clip_each_tensor']
