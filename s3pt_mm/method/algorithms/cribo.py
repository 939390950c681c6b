"""CrIBo (arXiv 2310.07855): objects across views, and across images through a memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from mmengine.logging import print_log
from mmpretrain.registry import MODELS
from torch import Tensor

from s3pt_mm.method import distributed
from s3pt_mm.method.algorithms.teacher_student import TeacherStudent
from s3pt_mm.method.clustering import (
    Assignment,
    ClusteringConfig,
    ObjectPooling,
    cluster_joint_views,
    draw_first_tokens,
)
from s3pt_mm.method.losses import (
    Target,
    cross_image_target,
    cross_view_target,
    sliced_cross_entropy,
)
from s3pt_mm.method.losses.prototype_logits import accumulation_dtype
from s3pt_mm.method.memory import Neighbours, ObjectQueue, cycle_consistent_neighbours

# The public code's choices, for ``fidelity='reference'``.
REFERENCE_CLUSTERING = dict(rounds=5, adaptive_prior=True, cost_scope='batch')


@MODELS.register_module()
class CrIBo(TeacherStudent):
    """Image level + the same object across two views + its neighbour across images.

    Args:
        clustering: Fields of :class:`~s3pt_mm.method.clustering.ClusteringConfig`.
        queue_images: Q, images in the memory (supplement: CrIBo 25,000, S3PT 2,500).
        queue_dtype: Storage of the memory (choice of this package: 'float16' in the configs).
        cross_image_from_epoch: First epoch (from 0) with the cross-image term.
        cross_image_divisor: 'own' divides each direction of the cross-image term by its own count
            of cycle-consistent objects (choice of this package); 'first_view' divides both by the
            first one's, as the public code does.
        fidelity: See :class:`TeacherStudent`.
        **kwargs: Of :class:`TeacherStudent`.

    Attributes:
        position_weight, depth_weight: Clustering weights; a schedule may move them.
    """

    def __init__(
        self,
        *,
        clustering: dict | None = None,
        queue_images: int = 25000,
        queue_dtype: str = 'float32',
        cross_image_from_epoch: int = 1,
        cross_image_divisor: str = 'own',
        fidelity: str = 'package',
        **kwargs,
    ) -> None:
        super().__init__(fidelity=fidelity, **kwargs)
        if fidelity == 'reference':
            clustering = {**(clustering or {}), **REFERENCE_CLUSTERING}
            cross_image_divisor = 'first_view'
        if cross_image_divisor not in ('own', 'first_view'):
            raise ValueError(
                f"cross_image_divisor must be 'own' or 'first_view', got {cross_image_divisor!r}"
            )
        self.cross_image_divisor = cross_image_divisor
        self.clustering = ClusteringConfig(**(clustering or {}))
        self.position_weight = self.clustering.position_weight
        self.depth_weight = self.clustering.depth_weight
        self.cross_image_from_epoch = cross_image_from_epoch
        self.object_center = self._build_center(self.image_center.space, self.image_center.momentum)
        self.queue = ObjectQueue(
            num_images=queue_images,
            max_objects_per_image=self.clustering.num_clusters,
            channels=self.student['backbone'].embed_dims,
            dtype=queue_dtype,
        )
        self._depth_checked = False

    def loss(self, inputs: list[Tensor], data_samples: list, **kwargs) -> dict[str, Tensor]:
        """One step's losses: the method on one screen.

        Args:
            inputs: Two views, each (B, 3, H, W).
            data_samples: B samples with ``token_xy`` (2, N, 2); optionally ``token_depth`` (2, N),
                ``token_has_depth`` (2, N) and ``sample_seed`` ().
        """
        images = torch.cat(inputs)
        with torch.no_grad():
            teacher_classes, teacher_tokens = self.encode(self.teacher, images)
            teacher_tokens = teacher_tokens.unflatten(0, (2, -1))
            assignment = self.cluster(teacher_tokens, data_samples)
            pool = ObjectPooling.from_assignment(assignment, accumulation_dtype(teacher_tokens))
            teacher_objects = pool(teacher_tokens)
        student_classes, student_tokens = self.encode(self.student, images)
        student_objects = pool(student_tokens.unflatten(0, (2, -1)))

        losses = self.image_loss(student_classes, teacher_classes, num_crops=2)
        losses.update(self.object_loss(student_objects, teacher_objects, pool.per_image))
        losses.update(cluster_health(assignment))
        return losses

    @torch.no_grad()
    def cluster(self, tokens: Tensor, data_samples: list) -> Assignment:
        """Joint-view clustering of the teacher's (2, B, N, d) tokens."""
        _, batch, num_tokens, _ = tokens.shape
        config = replace(
            self.clustering, position_weight=self.position_weight, depth_weight=self.depth_weight
        )
        positions = _stack(data_samples, 'token_xy', tokens.device)
        depths = has_depth = None
        if config.depth_weight:
            depths = _stack(data_samples, 'token_depth', tokens.device)
            has_depth = _stack(data_samples, 'token_has_depth', tokens.device)
            self._tell_missing_depth(has_depth)
        first = draw_first_tokens(
            _stack(data_samples, 'sample_seed', 'cpu'),
            batch,
            2 * num_tokens,
            config.num_clusters,
            tokens.device,
        )
        return cluster_joint_views(
            tokens.transpose(0, 1).flatten(1, 2),
            positions.flatten(1, 2),
            first,
            config,
            None if depths is None or has_depth is None else depths.flatten(1, 2),
            None if has_depth is None else has_depth.flatten(1, 2),
        )

    def _tell_missing_depth(self, has_depth: Tensor | None) -> None:
        if not self._depth_checked and (has_depth is None or not has_depth.any()):
            print_log(
                f'{type(self).__name__}: depth_weight={self.depth_weight}, but the first '
                'batch holds no LiDAR depth: clustering goes on without that term wherever depth '
                'is absent.',
                logger='current',
            )
        self._depth_checked = True

    def object_loss(
        self, student_objects: Tensor, teacher_objects: Tensor, per_image: Tensor
    ) -> dict[str, Tensor]:
        """Cross-view and cross-image terms; then this step's objects enter the memory.

        Args:
            student_objects: (2, n, d), gradient wanted.
            teacher_objects: (2, n, d).
            per_image: (B,) objects of each image, of sum n.
        """
        ranks = distributed.world_size()
        student_head, teacher_head = self.student['head'], self.teacher['head']
        student = student_head.object_prototypes.logits(
            student_head(student_objects.flatten(0, 1)), self.student_temperature
        )
        with torch.no_grad():
            everybody, sizes = distributed.gather_ragged(teacher_objects.transpose(0, 1))
            everybody = everybody.transpose(0, 1)
            offset = sum(sizes[: distributed.rank()])
            neighbours = self.find_neighbours(teacher_objects, everybody, offset)
            counts = [int(near.consistent.sum()) for near in neighbours]
            global_counts = distributed.sum_over_ranks(
                torch.tensor(counts, device=everybody.device)
            )
            norm = teacher_head.object_prototypes.row_norms()
            teacher = teacher_head.object_prototypes.logits(
                teacher_head(teacher_objects.flatten(0, 1)), self.teacher_temperature, norm
            )
            shift = self.object_center.shift(self.teacher_temperature)
            log_sum = self.object_center.new_log_sum()
            targets = [
                cross_view_target(
                    teacher,
                    shift,
                    global_objects=sum(sizes),
                    ranks=ranks,
                    log_probability_sum=log_sum,
                ),
                self._cross_image_target(neighbours, norm, shift, global_counts.tolist(), ranks),
            ]
        loss, terms = sliced_cross_entropy(student, targets, slice_rows=self.slice_rows)
        self.object_center.update(teacher, log_sum=log_sum)
        self.queue.push(*everybody, distributed.gather_ragged(per_image)[0])
        # Both terms share one pass over the student's logits: the first carries the gradient.
        return dict(
            loss_cross_view=distributed.global_value(loss - loss.detach() + terms[0]),
            loss_cross_image=distributed.global_value(terms[1]),
            objects_per_image=per_image.float().mean(),
            cycle_share=global_counts.sum().float() / max(2 * sum(sizes), 1),
        )

    def find_neighbours(
        self, own: Tensor, everybody: Tensor, offset: int
    ) -> tuple[Neighbours, Neighbours]:
        """Cycle-consistent neighbours of both views' objects, before this batch is pushed.

        Before ``cross_image_from_epoch`` nothing is searched and nothing is consistent.
        """
        if self.epoch < self.cross_image_from_epoch:
            nothing = Neighbours(
                torch.zeros(own.shape[1], dtype=torch.int64, device=own.device),
                torch.zeros(own.shape[1], dtype=torch.bool, device=own.device),
            )
            return nothing, nothing
        return tuple(
            cycle_consistent_neighbours(
                own[view], everybody[1 - view], self.queue, view=view, offset=offset
            )
            for view in (0, 1)
        )

    def _cross_image_target(
        self,
        neighbours: tuple[Neighbours, Neighbours],
        norm: Tensor,
        shift: Tensor,
        global_counts: list[int],
        ranks: int,
    ) -> Target:
        # Only the neighbours that teach are read and projected, by today's teacher head.
        found = [
            self.queue.take(view, near.positions[near.consistent])
            for view, near in enumerate(neighbours)
        ]
        if self.cross_image_divisor == 'first_view':
            global_counts = [global_counts[0]] * 2
        head = self.teacher['head']
        teacher = head.object_prototypes.logits(
            head(torch.cat(found).to(norm.dtype)), self.teacher_temperature, norm
        )
        return cross_image_target(
            teacher,
            shift,
            consistent_view1=neighbours[0].consistent,
            consistent_view2=neighbours[1].consistent,
            global_counts=tuple(global_counts),
            ranks=ranks,
        )


def _stack(samples: list, field: str, device: torch.device | str) -> Tensor | None:
    """(B, ...) one field of all samples, or None where the pipeline did not give it."""
    if not all(field in sample for sample in samples):
        return None
    values = [torch.as_tensor(sample.get(field)) for sample in samples]
    return torch.stack(values).to(device, non_blocking=True)


def cluster_health(assignment: Assignment) -> dict[str, Tensor]:
    """Spread of cluster sizes: standard deviation over mean of the tokens of non-empty clusters."""
    sizes = assignment.counts.sum(1).float()
    sizes = sizes[sizes > 0]
    return dict(cluster_size_spread=sizes.std(correction=0) / sizes.mean())
