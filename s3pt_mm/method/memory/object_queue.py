"""Queue of the last Q images' object vectors: buffers, so that it is saved, resumed and moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s3pt_mm.common.host import Refusal, send

_DTYPES = {name: getattr(torch, name) for name in ('float64', 'float32', 'float16', 'bfloat16')}


class ObjectQueue(nn.Module):
    """A ring of un-projected teacher objects of view 1 and view 2, a variable number per image.

    The newest objects lie at ``head``; positions run from newest to oldest and wrap around. An
    image leaves when Q newer images are in. The queue starts empty: what is read is what was
    pushed (the reference starts from random vectors).

    What the loss stages enters with the optimiser's step: :meth:`stage`, then :meth:`commit`, or
    :meth:`forget` where the step was not taken. Counts and head stay on the host, whatever device
    the module is moved to: no step waits to learn how full the queue is.

    Memory: ``2 * Q * K * d`` elements plus ``2 * Q * K`` float32 norms, in every checkpoint too: at
    S3PT's 2,500 images, 128 clusters and 384 channels 0.49 GB in float16, 0.98 GB in float32.

    Args:
        num_images: Q.
        max_objects_per_image: K; more objects than this in an image is an error.
        channels: d.
        dtype: Storage, 'float64', 'float32', 'float16' or 'bfloat16'.

    Raises:
        ValueError: For an unknown ``dtype`` or sizes below 1.
    """

    objects: Tensor
    inverse_norms: Tensor
    counts: Tensor
    head: Tensor

    def __init__(
        self, *, num_images: int, max_objects_per_image: int, channels: int, dtype: str = 'float32'
    ) -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise ValueError(f'queue dtype must be one of {sorted(_DTYPES)}, got {dtype!r}')
        if min(num_images, max_objects_per_image, channels) < 1:
            raise ValueError(
                f'queue sizes must be at least 1, got num_images={num_images}, '
                f'max_objects_per_image={max_objects_per_image}, channels={channels}'
            )
        self.num_images = num_images
        self.max_objects_per_image = max_objects_per_image
        capacity = num_images * max_objects_per_image
        self.register_buffer('objects', torch.zeros(2, capacity, channels, dtype=_DTYPES[dtype]))
        # Matching is by cosine: norms are stored, so that nobody normalises the queue every step.
        self.working_dtype = torch.promote_types(_DTYPES[dtype], torch.float32)
        self.register_buffer('inverse_norms', torch.zeros(2, capacity, dtype=self.working_dtype))
        self.register_buffer('counts', torch.zeros(num_images, dtype=torch.int64))
        self.register_buffer('head', torch.zeros((), dtype=torch.int64))
        # (2, n, d) objects and (B,) counts of each micro-batch since the last step
        self._staged: list[tuple[Tensor, Tensor]] = []
        # The same of the last step, while nobody has asked whether it was taken.
        self._undecided: tuple[list[tuple[Tensor, Tensor]], Refusal] | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ObjectQueue:
        """Move and convert everything but the two counters."""
        self.settle()
        counters = self.counts, self.head
        super()._apply(fn, recurse)
        self._buffers.update(counts=counters[0], head=counters[1])
        return self

    @property
    def capacity(self) -> int:
        """Objects of one view that fit."""
        return self.objects.shape[1]

    def __len__(self) -> int:
        """Objects held (of each view)."""
        self.settle()
        return int(self.counts.sum())

    def spans(self) -> list[tuple[int, int]]:
        """Ring intervals [begin, end) that hold objects, newest first; none when empty."""
        total, head = len(self), int(self.head)
        if total == 0:
            return []
        if head + total <= self.capacity:
            return [(head, head + total)]
        return [(head, self.capacity), (0, head + total - self.capacity)]

    def flat_positions(self) -> Tensor:
        """(M,) ring positions of the M held objects, newest image first."""
        return torch.cat([torch.arange(a, b) for a, b in self.spans()] or [torch.arange(0)])

    def take(self, view: int, positions: Tensor) -> Tensor:
        """(n, d) vectors of one view (0 or 1) at ring ``positions`` (n,), at least float32."""
        return self.objects[view, positions].to(self.working_dtype)

    def stage(self, objects: Tensor, per_image: Sequence[int] | Tensor) -> None:
        """Keep a (micro-)batch's (2, n, d) objects, (B,) to an image, until :meth:`commit`."""
        self._staged.append((objects.detach(), torch.as_tensor(per_image)))

    def commit(self, refusal: Refusal | None = None) -> None:
        """Push what was staged since the last step, as one batch.

        Where the device decides whether the step was taken, it is pushed when somebody looks: the
        counters are the host's, and it need not wait before it must.
        """
        self.settle()
        staged, self._staged = self._staged, []
        if refusal is None:
            self._push(staged)
        else:
            self._undecided = staged, refusal

    def settle(self) -> None:
        """Read whether the last step was taken, if that is open, and push or drop."""
        undecided, self._undecided = self._undecided, None
        if undecided is not None and not bool(undecided[1].read()):
            self._push(undecided[0])

    def _push(self, staged: list[tuple[Tensor, Tensor]]) -> None:
        if staged:
            objects, counts = zip(*staged, strict=True)
            together = torch.cat(objects, dim=1) if len(objects) > 1 else objects[0]
            self.push(together, torch.cat(counts))

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.settle()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._undecided = None
        super()._load_from_state_dict(*args, **kwargs)

    def forget(self) -> None:
        """Drop what was staged: the step was not taken."""
        self._staged = []

    def pending(self) -> list[tuple[Tensor, Tensor]]:
        """What was staged since the last step, for a checkpoint between."""
        return self._staged

    def restore(self, pending: list[tuple[Tensor, Tensor]]) -> None:
        """Take :meth:`pending` back."""
        self._staged = [(send(objects, self.objects.device), counts) for objects, counts in pending]

    @torch.no_grad()
    def push(self, views: Tensor, per_image: Tensor) -> None:
        """Insert a batch (of all ranks, in rank order); its first image is the newest.

        Args:
            views: (2, n, d) the objects in view 1 and view 2, image by image.
            per_image: (B,) number of objects of each image, of sum n, on the host. Of a batch
                larger than the queue the first Q images are kept.

        Raises:
            ValueError: If counts do not match, or an image has more objects than there is room.
        """
        per_image = per_image[: self.num_images].to(self.counts)
        kept = int(per_image.sum())
        if kept > views.shape[1]:
            raise ValueError(f'{views.shape[1]} objects pushed for counts of sum {kept}')
        if len(per_image) and int(per_image.max()) > self.max_objects_per_image:
            raise ValueError(
                f'an image has {int(per_image.max())} objects, the queue has room for '
                f'{self.max_objects_per_image} (max_objects_per_image)'
            )
        self.counts.copy_(torch.cat([per_image, self.counts])[: self.num_images])
        head = (int(self.head) - kept) % self.capacity
        self.head.fill_(head)
        first = min(kept, self.capacity - head)
        vectors = views[:, :kept].to(self.inverse_norms)
        norms = vectors.norm(dim=2).clamp_min_(1e-12).reciprocal_()
        for begin, part in ((head, slice(0, first)), (0, slice(first, kept))):
            end = begin + vectors[:, part].shape[1]
            if begin < end:
                self.objects[:, begin:end] = vectors[:, part]
                self.inverse_norms[:, begin:end] = norms[:, part]
