"""What the pipeline hands over beside the views, and how it gets to the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mmpretrain.models.utils import SelfSupDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor

from s3pt_mm.common.host import send
from s3pt_mm.kernels.device_views import cut_views, decoded
from s3pt_mm.kernels.photometric import colour_views

# What a user who sees a field missing has to add to the pipeline.
_REMEDY = {
    'token_xy': "dict(type='TokenGeometry', patch_size=...) after the views",
    'sample_seed': "dict(type='SeedFromIndex') as its first step",
}


@dataclass(frozen=True)
class TokenFields:
    """The geometry of a batch's tokens, one tensor a field, and the seeds of its images.

    Attributes:
        xy: (B, 2, N, 2) float32 source-image positions, pixels.
        seeds: (B,) int64, always on the host: the draws they key are made there.
        depth: (B, 2, N) float32 metres, or None where the pipeline gives none.
        has_depth: (B, 2, N) bool, with ``depth``.
    """

    xy: Tensor
    seeds: Tensor
    depth: Tensor | None = None
    has_depth: Tensor | None = None

    @classmethod
    def of(cls, samples: list | TokenFields) -> TokenFields:
        """Stack the fields of all samples; what is stacked already stays.

        Raises:
            ValueError: If a sample has no positions or no seed, naming the transform to add.
        """
        if isinstance(samples, TokenFields):
            return samples
        needed = {}
        for name, remedy in _REMEDY.items():
            value = _stack(samples, name)
            if value is None:
                raise ValueError(f'a data sample has no {name}: add {remedy} to the train pipeline')
            needed[name] = value
        depth, has_depth = (_stack(samples, name) for name in ('token_depth', 'token_has_depth'))
        if depth is None or has_depth is None:
            depth = has_depth = None
        return cls(needed['token_xy'], needed['sample_seed'].cpu(), depth, has_depth)

    def to(self, device: torch.device | str) -> TokenFields:
        """The geometry on ``device``, without waiting for the copies; seeds stay."""
        depth, has_depth = (
            None if field is None else send(field, device) for field in (self.depth, self.has_depth)
        )
        return TokenFields(send(self.xy, device), self.seeds, depth, has_depth)


class BatchUnderWay(dict):
    """A batch of the data loader of which views and fields are on their way to the device.

    Attributes:
        views: On the device, as the loader gave them.
        fields: On the device, where the pipeline gives token positions.
        arrived: Event of the stream that carries them.
    """

    views: list[Tensor]
    fields: TokenFields | None
    arrived: Any


@MODELS.register_module()
class ViewsPreprocessor(SelfSupDataPreprocessor):
    """Normalises views; token fields are stacked, so that a step copies six tensors, not 130.

    No copy is waited for: ``pin_memory=True`` in the data loader lets the views travel while the
    host goes on. Views whose pipeline says ``decode_on='device'`` are decoded and cut first, those
    with ``colours_on='device'`` coloured. Options are those of ``SelfSupDataPreprocessor``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault('non_blocking', True)
        super().__init__(*args, **kwargs)
        self._stream: Any = None

    def send_ahead(self, data: dict) -> BatchUnderWay:
        """Start a batch's copies on a stream of their own; :meth:`forward` waits for them there.

        The loop calls it for the next batch before it runs the current one.
        """
        module = torch.get_device_module(self.device)
        if self._stream is None:
            self._stream = module.Stream(device=self.device)
        there = BatchUnderWay(data)
        with module.stream(self._stream):
            there.views = [send(view, self.device) for view in data['inputs']]
            there.fields = self._fields(data.get('data_samples'))
            there.arrived = self._stream.record_event()
        return there

    def forward(self, data: dict, training: bool = False) -> dict:
        """``dict(inputs=views, data_samples=samples)`` -> the same on the device.

        The samples of a pipeline with token positions become one :class:`TokenFields`.
        """
        samples = data.get('data_samples') or []
        colours, cuts = _stack(samples, 'view_colours'), _stack(samples, 'view_cuts')
        if isinstance(data, BatchUnderWay):
            views, fields = data.views, data.fields
            self._receive(data)
        else:
            views, fields = data['inputs'], self._fields(samples)
        if cuts is not None:
            jpegs, paths = zip(
                *((s.view_jpeg, s.get('img_path', '')) for s in samples), strict=True
            )
            views = cut_views(decoded(jpegs, self.device, paths), cuts)
        if colours is not None:
            views = [
                colour_views(send(view, self.device), draws)
                for view, draws in zip(views, colours.cpu().unbind(1), strict=True)
            ]
        views = super().forward(dict(inputs=views, data_samples=None), training)['inputs']
        samples = data.get('data_samples') if fields is None else fields
        return dict(inputs=views, data_samples=samples)

    def _fields(self, samples: list | None) -> TokenFields | None:
        if samples and 'token_xy' in samples[0]:
            return TokenFields.of(samples).to(self.device)
        return None

    def _receive(self, data: BatchUnderWay) -> None:
        """From here on the step's stream may read the batch, and its memory outlives the step."""
        here = torch.get_device_module(self.device).current_stream(self.device)
        here.wait_event(data.arrived)
        fields = data.fields
        parts = [] if fields is None else [fields.xy, fields.depth, fields.has_depth]
        for tensor in [*data.views, *parts]:
            if tensor is not None:
                tensor.record_stream(here)


def _stack(samples: list, field: str) -> Tensor | None:
    """(B, ...) one field of all samples, or None where one of them lacks it."""
    if not samples or not all(field in sample for sample in samples):
        return None
    return torch.stack([torch.as_tensor(sample.get(field)) for sample in samples])
