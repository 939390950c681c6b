"""Fast forms of a few operations, each for one kind of device, each beside its plain form.

Plain PyTorch is the default everywhere; a model's option asks for the other.
"""

from s3pt_mm.kernels.dispatch import IMPLEMENTATIONS, kernel_for

__all__ = ['IMPLEMENTATIONS', 'kernel_for']
