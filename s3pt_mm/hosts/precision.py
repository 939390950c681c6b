"""fp16 configs on machines without an accelerator: bf16 where the CPU has it, else float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import ConfigDict
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from s3pt_mm.common.errors import ConfigError

_AMP = 'AmpOptimWrapper'
_AMP_ONLY = ('loss_scale', 'dtype', 'use_fsdp')


def has_accelerator() -> bool:
    """Whether mmengine's ``AmpOptimWrapper`` can be built here; it refuses a CPU and Apple's
    MPS."""
    return get_device() not in ('cpu', 'mps')


def cpu_has_bf16(cpuinfo: Path = Path('/proc/cpuinfo')) -> bool:
    """Whether the CPU multiplies bf16 in hardware.

    torch also emulates bf16 where the CPU lacks it, several times slower than float32, so its
    own answer to "is bf16 supported" does not help.

    Args:
        cpuinfo: Linux's list of CPU features. Where it is absent the answer is no.
    """
    if not cpuinfo.is_file():
        return False
    flags = {
        flag
        for line in cpuinfo.read_text().splitlines()
        if line.startswith('flags')
        for flag in line.partition(':')[2].split()
    }
    return bool(flags & {'avx512_bf16', 'amx_bf16'})


@OPTIM_WRAPPERS.register_module()
class S3PTCpuBf16OptimWrapper(OptimWrapper):
    """``AmpOptimWrapper`` for a CPU: forward in bf16 autocast, weights and optimiser in float32.

    bf16 has float32's range, so no loss scaling is needed.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Forward under autocast, inside mmengine's own context (gradient accumulation)."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Load, without the loss scale that a checkpoint from an accelerator carries."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != 'loss_scaler'})


def resolve_precision(
    optim_wrapper: ConfigDict | dict,
    *,
    accelerator: bool | None = None,
    bf16: bool | None = None,
) -> str | None:
    """Make a mixed-precision optimiser wrapper fit this machine. Edits the config in place.

    Args:
        optim_wrapper: ``cfg.optim_wrapper``; one of another type is left alone.
        accelerator: Defaults to :func:`has_accelerator`.
        bf16: Defaults to :func:`cpu_has_bf16`.

    Returns:
        The line to log, or None where nothing changed.
    """
    if optim_wrapper.get('type') not in (_AMP, 'mmengine.' + _AMP):
        return None
    if has_accelerator() if accelerator is None else accelerator:
        return None
    wanted = optim_wrapper.get('dtype') or 'float16'
    for key in _AMP_ONLY:
        optim_wrapper.pop(key, None)
    if wanted in ('float16', 'bfloat16') and (cpu_has_bf16() if bf16 is None else bf16):
        optim_wrapper['type'] = 'mmengine.S3PTCpuBf16OptimWrapper'
        return f'Precision: no accelerator, so {wanted} autocast runs as bfloat16 on this CPU.'
    optim_wrapper['type'] = 'mmengine.OptimWrapper'
    return (
        f'Precision: no accelerator and no bf16 instructions in this CPU, so {wanted} autocast '
        'is off and everything runs in float32.'
    )


def set_float32_products(cfg: ConfigDict | dict) -> None:
    """Follow the config's ``float32_matmul_precision``: how exact float32 products have to be.

    'highest' (torch's default) is float32; 'high' allows TF32 on NVIDIA GPUs, 10 bits of mantissa
    in products and convolutions, several times as fast. Without the key nothing is set.

    Raises:
        ConfigError: For another value.
    """
    precision = cfg.get('float32_matmul_precision')
    if precision is None:
        return
    if precision not in ('highest', 'high'):
        raise ConfigError(
            f"float32_matmul_precision={precision!r}: write 'highest' (float32) or 'high' (TF32)"
        )
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision == 'high'
