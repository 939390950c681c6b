"""What DINO, CrIBo and S3PT share: two networks, one follows the other; the image-level term."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from mmengine.model import BaseModel, ModuleDict
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from s3pt_mm.common.host import Refusal, Scalars
from s3pt_mm.common.models import load_strictly
from s3pt_mm.method import distributed
from s3pt_mm.method.algorithms.image_level import health_and_slice, image_term, teacher_health
from s3pt_mm.method.backbone import REFERENCE as REFERENCE_BACKBONE
from s3pt_mm.method.heads import ProjectionHead
from s3pt_mm.method.losses import Center, vmf_log_normalizer
from s3pt_mm.method.losses.prototype_logits import through_weight_norm
from s3pt_mm.method.memory import ObjectQueue
from s3pt_mm.method.moving_average import follow
from s3pt_mm.method.row_limits import row_limit

Biases = tuple[list[Tensor | None], list[Tensor | None]]  # the student's and the teacher's

_REMEDY = (
    'Weights of DINO, timm, Hugging Face and others: s3pt-train --init FILE, or s3pt-convert them '
    "first; a checkpoint of this package: init_cfg.prefix='teacher.backbone.'"
)


class TeacherStudent(BaseSelfSupervisor):
    """A student trained by gradients and a teacher that is its moving average.

    State dict: ``student.backbone.*``, ``student.head.*``, ``teacher.backbone.*``,
    ``teacher.head.*`` and the centres. An evaluation loads the teacher's backbone with
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='teacher.backbone.')``.

    The teacher stays in eval mode whatever :meth:`train` is told (its copied ViT has drop path) and
    has no gradient. A loss computes and returns; what it saw waits until a hook calls
    :meth:`update_teacher` after the optimiser's step, which moves the teacher, the centres and the
    memory together, or :meth:`forget_step` where the step was not taken.

    Args:
        backbone: mmpretrain ViT with ``out_type='raw'``: (n, 1 + N, d), class token first.
        head: :class:`~s3pt_mm.method.heads.ProjectionHead`; ``in_channels`` defaults to the
            ViT's width.
        center_space: 'logit' or 'probability' (:class:`~s3pt_mm.method.losses.Center`).
        center_momentum: Of the running centres.
        student_temperature: tau of the student.
        teacher_temperature: tau of the teacher until a schedule moves it (DINO's warm-up value).
        memory: What the large temporaries may take at a time: 'auto' (a sixteenth of an
            accelerator's memory; on a CPU what its cache likes) or gigabytes
            (:func:`~s3pt_mm.method.row_limits.row_limit`). Changes memory and speed, not results.
        slice_rows: Rows whose (rows, P) logits exist at a time, in place of ``memory``.
        freeze_patch_embed: Keep the ViT's patch filters as they were initialised, as MoCo v3
            does (arXiv 2104.02057). Choice of this package for short runs: Adam moves all weights
            of a filter together, and brightness soon drowns the position embedding.
        compile: mode of ``torch.compile`` for the long parts whose shapes never change (the ViTs,
            the clustering, health figures) and, fused but not as a graph, for the vMF normaliser
            and, in half precision, the cross-entropies: 'default', or 'reduce-overhead', which
            replays the former as CUDA graphs. None runs them as written. Needs a C compiler beside
            Triton; the first steps take a minute or two. docs/performance.md has what it gains.
        fidelity: 'reference' sets every option in which this package departs from the public code
            of DINO and CrIBo to that code's choice, whatever else is given; 'package' leaves the
            options alone. docs/pretraining.md lists them.

    Attributes:
        teacher_temperature: Moved by ``MethodScheduleHook``.
        epoch: Set by ``MethodScheduleHook``; 0 until then.
        required_hooks: ``default_hooks`` key -> class, without which a run must not start; the
            exact loops ask. A teacher that nobody moves is no error of its own: the losses fall.
    """

    required_hooks: ClassVar[dict[str, str]] = {'teacher_update': 'TeacherUpdateHook'}

    def __init__(
        self,
        *,
        backbone: dict,
        head: dict,
        center_space: str = 'logit',
        center_momentum: float = 0.9,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        memory: str | float = 'auto',
        slice_rows: int | None = None,
        freeze_patch_embed: bool = False,
        compile: str | None = None,
        fidelity: str = 'package',
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        # BaseSelfSupervisor would register backbone and head at top level, beside the student's.
        data_preprocessor = data_preprocessor or dict(type='ViewsPreprocessor')
        if isinstance(data_preprocessor, dict):
            data_preprocessor = MODELS.build(data_preprocessor)
        BaseModel.__init__(self, init_cfg=init_cfg, data_preprocessor=data_preprocessor)
        if fidelity not in ('package', 'reference'):
            raise ValueError(f"fidelity must be 'package' or 'reference', got {fidelity!r}")
        if fidelity == 'reference':
            backbone = {**backbone, **REFERENCE_BACKBONE}
        encoder = MODELS.build(backbone)
        head = dict(head)
        head.setdefault('type', ProjectionHead)
        head.setdefault('in_channels', encoder.embed_dims)
        head.setdefault('memory', memory)
        self.student = ModuleDict(dict(backbone=encoder, head=MODELS.build(head)))
        if freeze_patch_embed:
            encoder.patch_embed.requires_grad_(False)
        self.compile_mode = compile
        self._tokens, self._teacher_health = self.compiled(_tokens), self.compiled(teacher_health)
        for module in encoder.modules():
            if hasattr(module, 'drop_prob'):  # NumPy's number, of mmpretrain, breaks graphs
                module.drop_prob = float(module.drop_prob)
        # A few kernels once fused: fewer than what replaying a graph of them costs.
        self._log_normalizer = self.compiled(vmf_log_normalizer, graph=False)
        self._unscale = self.compiled(through_weight_norm, graph=False)
        self._image_slice = None
        if compile is not None:
            self._image_slice = self.compiled(health_and_slice, graph=False)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.num_prefix_tokens = encoder.num_extra_tokens
        self.image_center = self._build_center(center_space, center_momentum)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.memory, self.slice_rows = memory, slice_rows
        self.epoch = 0
        self.train()

    def _build_center(self, space: str, momentum: float) -> Center:
        prototypes = self.student['head'].image_prototypes.num_prototypes
        return Center(prototypes, space=space, momentum=momentum)

    def compiled(self, function: Callable, *, graph: bool = True) -> Callable:
        """``function`` as the option ``compile`` wants it; a CUDA graph has equal shapes."""
        if self.compile_mode is None:
            return function
        if not graph:
            return torch.compile(function, fullgraph=True)
        return torch.compile(function, dynamic=False, fullgraph=True, mode=self.compile_mode)

    def begin_step(self) -> None:
        """What CUDA graphs gave in the last step may be written over from here on."""
        if self.compile_mode is not None:
            torch.compiler.cudagraph_mark_step_begin()

    @property
    def with_neck(self) -> bool:
        """No neck: mmpretrain asks."""
        return False

    def init_weights(self) -> None:
        """Initialise the student, or load its ``init_cfg``; the teacher starts as its copy.

        Raises:
            CheckpointMismatchError: The backbone's ``init_cfg`` names one that does not fit.
        """
        backbone = self.student['backbone']
        trained = backbone.init_cfg
        if isinstance(trained, dict) and trained.get('type') == 'Pretrained':
            backbone.init_cfg = None  # mmengine's initialiser would load what fits
            super().init_weights()
            backbone.init_cfg = trained
            load_strictly(backbone, trained['checkpoint'], trained.get('prefix'), remedy=_REMEDY)
        else:
            super().init_weights()
        self.teacher.load_state_dict(self.student.state_dict())

    def train(self, mode: bool = True) -> TeacherStudent:
        """Student as told; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(student, teacher) parameters in the same order: who is followed by whom."""
        yield from zip(self.student.parameters(), self.teacher.parameters(), strict=True)

    def state_modules(self) -> dict[str, Center | ObjectQueue]:
        """Centres and memory, by name: what moves after the optimiser's step, as the teacher."""
        return {n: m for n, m in self.named_children() if isinstance(m, (Center, ObjectQueue))}

    @torch.no_grad()
    def update_teacher(self, momentum: float, refusal: Refusal | None = None) -> None:
        """After an optimiser's step: the centres, the memory and the teacher move.

        ``teacher <- momentum * teacher + (1 - momentum) * student``, in place, all at once.

        Args:
            momentum: The teacher's share.
            refusal: Where the device decides whether the step was taken. If not, nothing moves:
                what is on the device obeys the flag there, the memory when it is next asked.
        """
        # First: a centre of logits reads the teacher's weights.
        for module in self.state_modules().values():
            module.commit(refusal)
        students, teachers = (list(side) for side in zip(*self.pairs(), strict=True))
        follow(teachers, students, 1 - momentum, None if refusal is None else refusal.flag)

    def forget_step(self) -> None:
        """In place of :meth:`update_teacher` where the optimiser's step was not taken."""
        for module in self.state_modules().values():
            module.forget()

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, Scalars]:
        """Total loss, and what is logged, on its way to the host while the step goes on."""
        if any(not isinstance(value, Tensor) or value.dim() for value in losses.values()):
            total, logged = super().parse_losses(losses)  # somebody's own
            return total, Scalars(logged)
        # mmengine's would launch a mean for each.
        total = torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()
        return total, Scalars({'loss': total, **losses})

    def rows_at_a_time(self, rows: Tensor) -> int:
        """Rows of one slice of the cross-entropy."""
        if self.slice_rows is not None:
            return self.slice_rows
        prototypes = self.image_center.value.numel()
        # float32 logits, gradient and probabilities, and half-precision copies of two of them.
        return row_limit(self.memory, rows.device, on_cpu=96, bytes_per_row=16 * prototypes)

    def encode(self, network: ModuleDict, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, H, W) -> class tokens (n, d) and patch tokens (n, N, d) after the final norm."""
        tokens = self._tokens(network['backbone'], images)
        return tokens[:, 0], tokens[:, self.num_prefix_tokens :]

    def extract_feat(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        """The teacher's raw output for one batch of images or of views."""
        images = torch.cat(inputs) if isinstance(inputs, (list, tuple)) else inputs
        return self.teacher['backbone'](images)

    def biases(self) -> Biases:
        """The student's and the teacher's, one a prototype layer; all are formed together."""
        own = self.student['head'].concentrations(self.student_temperature)
        levels = self.student['head'].prototype_layers()
        if own is None:
            return [None] * len(levels), [None] * len(levels)
        theirs = self.teacher['head'].concentrations(self.teacher_temperature)
        both = self._log_normalizer(torch.cat([own, theirs]), levels[0].dimension)
        return list(both[: len(levels)]), list(both[len(levels) :].detach())

    def image_loss(
        self,
        student: Tensor,
        teacher: Tensor,
        num_crops: int,
        biases: Biases | None = None,
        batches: list[int] | None = None,
    ) -> dict[str, Tensor]:
        """Image-level term, what moves its centre, and what the teacher's outputs look like.

        Args:
            student: (num_crops * B, D) class tokens after the head, crop-major, gradient wanted.
            teacher: (2 B, D) those of the global views after the teacher's head, view-major.
            num_crops: Crops that the student saw.
            biases: :meth:`biases` where somebody has them.
            batches: Images of each rank where somebody knows them; otherwise several ranks wait.
        """
        own, teachers = biases or self.biases()
        learning = self.student['head'].image_prototypes.logits(
            student, self.student_temperature, own[0]
        )
        with torch.no_grad():
            teaching = self.teacher['head'].image_prototypes.logits(
                teacher, self.teacher_temperature, teachers[0]
            )
            shift = self.image_center.shift(self.teacher_temperature)
            log_sum = self.image_center.new_log_sum()
            images = sum(batches or distributed.sizes_of_ranks(len(teacher) // 2, shift.device))
        loss, health = image_term(
            learning,
            teaching,
            shift,
            images=images,
            num_crops=num_crops,
            slice_rows=self.rows_at_a_time(student),
            log_probability_sum=log_sum,
            forms=(self._image_slice, self._teacher_health, self._unscale),
        )
        self.image_center.observe(teaching, global_rows=2 * images, log_sum=log_sum)
        return dict(loss_image=distributed.global_value(loss), **health)


def _tokens(backbone: nn.Module, images: Tensor) -> Tensor:
    return backbone(images)[-1]
