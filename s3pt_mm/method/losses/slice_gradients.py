"""Gradient products of the sliced cross-entropy, summed slice by slice."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from s3pt_mm.method.losses.prototype_logits import SliceLogits


class SliceGradients:
    """Sums of the slices' gradient products; half precision is kept off its subnormals.

    Args:
        slices: The student's rows.
        need: Whether features, weight, gain and bias want a gradient. A frozen prototype layer
            wants none, which saves a third of the products.
    """

    def __init__(self, slices: SliceLogits, need: tuple[bool, ...]) -> None:
        self.slices = slices
        weight, total = slices.weight, slices.total
        self.features = slices.bare(slices.features.shape) if need[0] else None
        self.weight = torch.empty_like(weight, dtype=total) if need[1] or need[2] else None
        self.started = False  # the weights' gradient is written, not added to, the first time
        self.bias = slices.bare((len(weight),)) if need[3] else None

    def add(self, begin: int, gradient: Tensor) -> None:
        """Take in d loss / d logits (s, P) of the rows from ``begin``; overwrites it."""
        slices, weight = self.slices, self.slices.weight
        if weight.dtype in (torch.float16, torch.bfloat16):
            peak = None
            if weight.dtype == torch.float16:
                # It ends at 6e-8 and the entries are about coefficient / P: bring the largest to 1.
                peak = torch.linalg.vector_norm(gradient, torch.inf).clamp_min_(1e-30)
            narrow = (gradient if peak is None else gradient / peak).to(weight.dtype)
            return self.add_narrow(begin, narrow, peak)
        rows, inverse = slices.features[begin : begin + len(gradient)], slices.inverse_temperature
        if self.bias is not None:
            self.bias += gradient.sum(0)
        if self.weight is not None:
            self.weight.addmm_(gradient.T, rows, beta=1 if self.started else 0, alpha=inverse)
            self.started = True
        if self.features is not None:
            if slices.scale is not None:
                gradient.mul_(slices.scale)
            here = self.features[begin : begin + len(gradient)]
            torch.mm(gradient, weight, out=here).mul_(inverse)
        return None

    def add_narrow(self, begin: int, narrow: Tensor, peak: Tensor | None) -> None:
        """Take in a gradient that is half precision already, divided by ``peak`` ()."""
        slices, weight, width = self.slices, self.slices.weight, self.slices.weight.shape[1]
        rows = slices.features[begin : begin + len(narrow)].to(weight.dtype)
        lift = rows.new_ones(1, dtype=slices.total) if peak is None else peak.reshape(1)
        back = lift * slices.inverse_temperature
        if self.weight is not None:
            if self.bias is not None:
                # Columns of ones make the bias's gradient part of the product; eight of them, for
                # tensor cores like lengths of eight.
                rows = F.pad(rows, (0, 8), value=1.0)
            product = narrow.T @ rows
            if self.started:
                self.weight.addcmul_(product[:, :width], back)
            else:
                torch.mul(product[:, :width], back, out=self.weight)
            self.started = True
            if self.bias is not None:
                self.bias += product[:, width] * lift
        elif self.bias is not None:
            self.bias += narrow.sum(0, dtype=self.bias.dtype) * lift
        if self.features is not None:
            if slices.scale is not None:
                weight = torch.mul(weight, slices.scale[:, None], out=torch.empty_like(weight))
            here = self.features[begin : begin + len(narrow)]
            torch.mul(narrow @ weight, back, out=here)

    def sums(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of features, weights and bias; None where none is wanted."""
        if self.weight is not None and not self.started:
            self.weight.zero_()
        return self.features, self.weight, self.bias
