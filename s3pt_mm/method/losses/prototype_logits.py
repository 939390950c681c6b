"""Logits of prototypes in factored form, and the passes over one slice of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_ROWS = 4096  # of a piece on a CPU


@dataclass(frozen=True)
class PrototypeLogits:
    """Logits ``features @ w.T / temperature + bias`` that nobody has multiplied out yet.

    Without ``gain`` the prototypes are ``w = weight``. With it they are weight-normalised,
    ``w_k = gain_k weight_k / |weight_k|`` (arXiv 1602.07868, eq. 2): the products are formed with
    ``weight`` itself and their columns scaled, so that no normalised copy of the largest tensor
    of the model exists.

    Args:
        features: (n, D) unit-norm bottleneck vectors.
        weight: (P, D).
        temperature: Positive divisor of the products.
        bias: (P,) added to every row, e.g. the vMF log-normaliser; None is zero.
        gain: (P, 1), or None.
        norm: (P, 1) :func:`row_norms` of ``weight`` where somebody has them already; looked at
            only with ``gain``.
        narrow: ``weight`` in the dtypes of products, once somebody has formed it; copies of these
            logits with other features share it.
    """

    features: Tensor
    weight: Tensor
    temperature: float
    bias: Tensor | None = None
    gain: Tensor | None = None
    norm: Tensor | None = None
    narrow: dict[torch.dtype, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.gain is not None and self.norm is None:
            object.__setattr__(self, 'norm', row_norms(self.weight))

    @property
    def num_prototypes(self) -> int:
        """P."""
        return len(self.weight)

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        """(P, D) ``weight`` in ``dtype``, without gradient; cast once."""
        if dtype not in self.narrow:
            self.narrow[dtype] = self.weight.detach().to(dtype)
        return self.narrow[dtype]

    @torch.no_grad()
    def scale(self) -> Tensor | None:
        """(P,) ``gain / |weight|``, or None where the prototypes are ``weight`` itself."""
        if self.gain is None or self.norm is None:  # together: __post_init__
            return None
        return (self.gain / self.norm).squeeze(1)

    @torch.no_grad()
    def dense(self) -> Tensor:
        """The (n, P) logits in float32 (or float64), without gradient; for few rows only."""
        return SliceLogits(self).of(slice(None))

    @torch.no_grad()
    def products(self, row: Tensor) -> Tensor:
        """(P,) ``w . row`` of one row (D,), without temperature and bias."""
        with torch.autocast(row.device.type, enabled=False):
            products = self.weight @ row.to(self.weight.dtype)
            scale = self.scale()
            return products if scale is None else products * scale


class SliceLogits:
    """Forms the logits of a few rows at a time, under autocast with its dtype's products.

    Args:
        logits: All rows.
    """

    def __init__(self, logits: PrototypeLogits) -> None:
        features = logits.features.detach()
        self.features = features
        self.weight = logits.weight_in(product_dtype(features))
        self.total = accumulation_dtype(features)
        self.bias = None if logits.bias is None else logits.bias.detach()
        self.scale = logits.scale()  # (P,), not divided by the temperature
        self.inverse_temperature = 1 / logits.temperature
        self.factor: Tensor | float = self.inverse_temperature
        if self.scale is not None:
            self.factor = self.scale * self.inverse_temperature

    def bare(self, shape: tuple[int, ...]) -> Tensor:
        """Zeros to sum up in."""
        return self.features.new_zeros(shape, dtype=self.total)

    def factor_tensor(self) -> Tensor:
        """``factor`` on the device in any case, so that a schedule compiles nothing anew."""
        if isinstance(self.factor, Tensor):
            return self.factor
        return torch.full((), self.factor, device=self.features.device)

    def products(self, rows: slice | Tensor) -> Tensor:
        """(s, P) products of rows ``rows`` in the weight's dtype, bare of everything else."""
        with torch.autocast(self.features.device.type, enabled=False):
            return self.features[rows].to(self.weight.dtype) @ self.weight.T

    def of(self, rows: slice | Tensor) -> Tensor:
        """(s, P) logits of rows ``rows``, a new tensor."""
        with torch.autocast(self.features.device.type, enabled=False):
            products = self.products(rows)
            if self.bias is not None and isinstance(self.factor, Tensor):
                # One pass, in place where the products need no widening.
                out = products if products.dtype == self.total else None
                return torch.addcmul(self.bias, products, self.factor, out=out)
            products = products.to(self.total).mul_(self.factor)
            return products if self.bias is None else products.add_(self.bias)


@torch.no_grad()
def row_norms(weight: Tensor, eps: float = 1e-12) -> Tensor:
    """(P, D) -> (P, 1) Euclidean norms, at least ``eps``, without gradient."""
    return torch.linalg.vector_norm(weight.detach(), dim=1, keepdim=True).clamp_min_(eps)


def product_dtype(features: Tensor) -> torch.dtype:
    """Under autocast the large products run in its dtype; softmax and sums stay in float32."""
    return autocast_dtype(features) or accumulation_dtype(features)


def is_half(features: Tensor) -> bool:
    """Whether the large products run in half precision."""
    return product_dtype(features) in (torch.float16, torch.bfloat16)


def autocast_dtype(rows: Tensor) -> torch.dtype | None:
    """What autocast makes of ``rows``, or None where it leaves them alone."""
    device = rows.device.type
    if torch.is_autocast_enabled(device) and rows.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return None


def accumulation_dtype(features: Tensor) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def accumulate_log_probability(total: Tensor, logits: Tensor) -> None:
    """``total <- log(exp(total) + sum_rows softmax(logits))`` for (s, P) logits, which stay.

    A logsumexp of log-softmax, so that a prototype that no row chooses gives a large negative
    number and not -inf.
    """
    log_p = torch.log_softmax(logits, dim=1)
    peak = log_p.amax(0)
    total_here = log_p.sub_(peak).exp_().sum(0).log_().add_(peak)
    torch.logaddexp(total, total_here, out=total)


def log_probability_sum(logits: PrototypeLogits, *, slice_rows: int = 64) -> Tensor:
    """(P,) ``log sum_rows softmax(logits)`` in slices, for centring in probability space.

    All are -inf without any row.
    """
    slices = SliceLogits(logits)
    total = slices.features.new_full((logits.num_prototypes,), -torch.inf, dtype=slices.total)
    for begin in range(0, len(slices.features), slice_rows):
        accumulate_log_probability(total, slices.of(slice(begin, begin + slice_rows)))
    return total


def softmax_and_log_sum(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(s, P) -> softmax (s, P) and logsumexp (s, 1), with one exponential an entry.

    The largest entry's probability is at least 1 / P, so its logarithm gives the sum's.
    """
    probabilities = torch.softmax(logits, dim=1)
    peak, where = logits.max(dim=1, keepdim=True)
    return probabilities, peak - probabilities.gather(1, where).log_()


def through_weight_norm(
    grad: Tensor, factor: Tensor, direction: Tensor, gain: Tensor, norm: Tensor
) -> Tensor:
    """Turn a gradient of ``w = g v / |v|`` into that of v, in place, times ``factor``.

    On a CPU in pieces that stay in its cache: the product below would be as large as the gradient.

    Returns:
        Gradient of g, (P, 1), times ``factor``.
    """
    if grad.device.type == 'cpu' and len(grad) > _ROWS:
        pieces = zip(*(rows.split(_ROWS) for rows in (grad, direction, gain, norm)), strict=True)
        return torch.cat([through_weight_norm(g, factor, *others) for g, *others in pieces])
    along = torch.linalg.vecdot(grad, direction.to(grad.dtype))[:, None] / norm
    # g / |v| (dw - v (dw . v) / |v|^2): the part along v does not turn it
    grad.addcmul_(direction, along / norm, value=-1).mul_(gain / norm * factor)
    return along * factor
