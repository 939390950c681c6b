"""PETR with TF32 or bf16 products stays near float32; TF32's rounding is emulated on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tools.dev.benchmark_detection import make_samples

from .petr_cases import fill_by_name, tiny_head

SIZE = (64, 96)


class Tf32(TorchDispatchMode):
    """Rounds what products take to 10 bits of mantissa, as an NVIDIA GPU's TF32 does."""

    PRODUCTS = ('aten.mm.', 'aten.bmm.', 'aten.addmm.', 'aten.convolution.')

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN202
        if str(func).startswith(self.PRODUCTS):
            args = [self.rounded(a) if isinstance(a, Tensor) else a for a in args]
        return func(*args, **(kwargs or {}))

    @staticmethod
    def rounded(tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32:
            return tensor
        bits = tensor.contiguous().view(torch.int32)
        return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def losses_and_gradients(precision: str) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)
    head = tiny_head()
    fill_by_name(head)
    feature = torch.randn(1, 6, 16, 4, 6)
    samples = make_samples(1, image_size=SIZE, objects=5)
    with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bf16'):
        if precision == 'tf32':
            with Tf32():
                total = sum(head.loss(feature, samples).values())
                total.backward()
        else:
            total = sum(head.loss(feature, samples).values())
    if precision != 'tf32':
        total.backward()
    return total.detach(), {n: p.grad for n, p in head.named_parameters() if p.grad is not None}


# Measured: see docs/detection.md. bf16 has 8 bits of mantissa, TF32 11.
@pytest.mark.parametrize(
    ('precision', 'of_loss', 'of_gradients'), [('tf32', 0.001, 0.01), ('bf16', 0.01, 0.08)]
)
def test_stays_near_float32(precision: str, of_loss: float, of_gradients: float) -> None:
    exact, gradients = losses_and_gradients('float32')
    loss, found = losses_and_gradients(precision)
    whole = torch.cat([gradients[name].flatten() for name in gradients])
    other = torch.cat([found[name].flatten() for name in gradients])
    error = float((other - whole).norm() / whole.norm())
    assert 0 < float((loss - exact).abs() / exact) < of_loss
    assert 0 < error < of_gradients
