"""CrIBo (arXiv 2310.07855): objects across views, and across images through a memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.registry import MODELS
from torch import Tensor

from s3pt_mm.common.host import fetch, send
from s3pt_mm.method import distributed
from s3pt_mm.method.algorithms.look_up import LookUp, look_up
from s3pt_mm.method.algorithms.teacher_student import Biases, TeacherStudent
from s3pt_mm.method.algorithms.token_fields import TokenFields
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
from s3pt_mm.method.losses.fused_slice import any_rows, fused_slice
from s3pt_mm.method.losses.prototype_logits import PrototypeLogits, accumulation_dtype
from s3pt_mm.method.memory import ObjectQueue
from s3pt_mm.method.memory.neighbours import largest

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
        cross_entropy: 'plain', or 'kernel': the object-level loss under autocast on an NVIDIA GPU
            goes through Triton kernels (:mod:`s3pt_mm.kernels.cross_entropy`).
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
        cross_entropy: str = 'plain',
        cross_image_divisor: str = 'own',
        fidelity: str = 'package',
        **kwargs: Any,
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
        self.cross_entropy = cross_entropy
        self._cluster_joint_views = self.compiled(cluster_joint_views)
        self._fused_slice = self._largest = None
        if self.compile_mode is not None:
            self._fused_slice = any_rows(self.compiled(fused_slice, graph=False))
            self._largest = self.compiled(largest, graph=False)
        self._depth_checked = False

    def loss(self, inputs: list[Tensor], data_samples: list, **kwargs: Any) -> dict[str, Tensor]:
        """One step's losses: the method on one screen.

        Args:
            inputs: Two views, each (B, 3, H, W).
            data_samples: What ``ViewsPreprocessor`` makes, or B samples with ``token_xy``
                (2, N, 2) and ``sample_seed`` (), optionally ``token_depth`` (2, N) and
                ``token_has_depth`` (2, N).

        Raises:
            ValueError: If a sample has no position or no seed, naming the transform to add.
        """
        self.begin_step()
        images = torch.cat(inputs)
        batches = distributed.start_sizes(len(inputs[0]), images.device)
        fields = TokenFields.of(data_samples).to(images.device)
        with torch.no_grad():
            teacher_classes, teacher_tokens = self.encode(self.teacher, images)
            teacher_tokens = teacher_tokens.unflatten(0, (2, -1))
            assignment = self.cluster(teacher_tokens, fields)
            sizes = batches()
            valid = fetch(distributed.gather_ragged(assignment.valid.byte(), sizes))
        student_classes, student_tokens = self.encode(self.student, images)
        # The host waits twice, for the clusters here and for what the memory answers in
        # object_loss, and each time the device has been given something else to do first.
        images_of_ranks = valid().bool().split(sizes)
        pool = ObjectPooling.from_assignment(
            assignment,
            accumulation_dtype(teacher_tokens),
            images_of_ranks[distributed.rank()],
        )
        teacher_objects = pool(teacher_tokens)
        found = self.look_up(teacher_objects, [rank.sum(1) for rank in images_of_ranks])
        biases = self.biases()
        student_objects = pool(student_tokens.unflatten(0, (2, -1)))
        student = self.student['head'].together(student_classes, student_objects.flatten(0, 1))
        with torch.no_grad():
            teacher = self.teacher['head'].together(teacher_classes, teacher_objects.flatten(0, 1))
        losses = self.image_loss(student[0], teacher[0], 2, biases, sizes)
        losses.update(self.object_loss(student[1], teacher[1], found, biases))
        losses['cluster_size_spread'] = assignment.size_spread
        return losses

    @torch.no_grad()
    def cluster(self, tokens: Tensor, fields: TokenFields | list) -> Assignment:
        """Joint-view clustering of the teacher's (2, B, N, d) tokens."""
        fields = TokenFields.of(fields).to(tokens.device)
        _, batch, num_tokens, _ = tokens.shape
        depth = has_depth = None
        if self.depth_weight:
            self._tell_missing_depth(fields.has_depth)
            if fields.depth is not None and fields.has_depth is not None:
                depth, has_depth = fields.depth.flatten(1, 2), fields.has_depth.flatten(1, 2)
        first = draw_first_tokens(
            fields.seeds, batch, 2 * num_tokens, self.clustering.num_clusters, tokens.device
        )
        weights: dict[str, Any] = dict(
            position_weight=self.position_weight, depth_weight=self.depth_weight
        )
        cluster, extra = self._cluster_joint_views, self.extra_cost_terms(fields)
        if extra:
            cluster = cluster_joint_views  # somebody's term need not compile
        elif self.compile_mode is not None:
            # A schedule moves them, and a number would be compiled anew.
            weights = {k: tokens.new_full((), w, dtype=torch.float32) for k, w in weights.items()}
        config = replace(self.clustering, **weights)
        joint = tokens.transpose(0, 1).flatten(1, 2)
        return cluster(joint, fields.xy.flatten(1, 2), first, config, depth, has_depth, extra)

    def extra_cost_terms(self, fields: TokenFields) -> Sequence[Callable[[Tensor], Tensor]]:
        """Cost terms beside feature, position and depth; none. docs/add_a_cost_term.md."""
        return ()

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
        self,
        student: Tensor,
        teacher: Tensor,
        found: LookUp,
        biases: Biases | None = None,
    ) -> dict[str, Tensor]:
        """Cross-view and cross-image terms; this step's objects are staged for the memory.

        Args:
            student: (2 n, D) view 1's objects, then view 2's, after the head, gradient wanted.
            teacher: (2 n, D) the same after the teacher's head.
            found: :meth:`look_up` of the teacher's objects before it.
            biases: :meth:`biases` where somebody has them.
        """
        own, teachers = biases or self.biases()
        learning = self.student['head'].object_prototypes.logits(
            student, self.student_temperature, own[1]
        )
        with torch.no_grad():
            teaching = self.teacher['head'].object_prototypes.logits(
                teacher, self.teacher_temperature, teachers[1]
            )
            shift = self.object_center.shift(self.teacher_temperature)
            log_sum = self.object_center.new_log_sum()
            targets = [
                cross_view_target(
                    teaching,
                    shift,
                    global_objects=found.everybody.shape[1],
                    ranks=distributed.world_size(),
                    log_probability_sum=log_sum,
                )
            ]
            counts = torch.zeros(2, device=teacher.device)
            if found.neighbours is not None:
                counts = distributed.sum_over_ranks(found.neighbours.consistent.sum(1))
                targets.append(self._cross_image_target(found, teaching, shift, counts))
        slice_rows = self.rows_at_a_time(teacher)
        loss, terms = sliced_cross_entropy(
            learning,
            targets,
            slice_rows=slice_rows,
            implementation=self.cross_entropy,
            fuse=self._fused_slice,
            unscale=self._unscale,
        )
        global_rows = 2 * found.everybody.shape[1]
        self.object_center.observe(teaching, global_rows=global_rows, log_sum=log_sum)
        self.queue.stage(found.everybody, torch.cat(list(found.per_image)))
        cross_image = terms[1] if len(targets) > 1 else torch.zeros_like(terms[0])
        # Both terms share one pass over the student's logits: the first carries the gradient.
        return dict(
            loss_cross_view=distributed.global_value(loss - loss.detach() + terms[0]),
            loss_cross_image=distributed.global_value(cross_image),
            objects_per_image=found.per_image[distributed.rank()].float().mean(),
            cycle_share=counts.sum() / max(global_rows, 1),
        )

    def look_up(self, objects: Tensor, per_image: Sequence[Tensor]) -> LookUp:
        """:func:`.look_up.look_up`, with neighbours from their epoch on."""
        search = self.epoch >= self.cross_image_from_epoch
        options: dict[str, Any] = dict(search=search, memory=self.memory, fuse=self._largest)
        return look_up(objects, per_image, self.queue, **options)

    def _cross_image_target(
        self, found: LookUp, own: PrototypeLogits, shift: Tensor, global_counts: Tensor
    ) -> Target:
        """Only the neighbours that teach are read and projected, by today's teacher head."""
        assert found.neighbours is not None and found.consistent is not None  # the caller asked
        consistent = found.consistent()  # the second wait
        positions = found.neighbours.positions.flatten()
        rows = send(consistent.flatten().nonzero().squeeze(1), positions.device)
        first = int(consistent[0].sum())
        taken = positions.index_select(0, rows)
        vectors = torch.cat([self.queue.take(0, taken[:first]), self.queue.take(1, taken[first:])])
        if self.cross_image_divisor == 'first_view':
            global_counts = global_counts[:1].expand(2)
        features = self.teacher['head'](vectors.to(own.features.dtype))
        return cross_image_target(
            replace(own, features=features),
            shift,
            consistent_view1=consistent[0],
            consistent_view2=consistent[1],
            global_counts=global_counts,
            ranks=distributed.world_size(),
        )
