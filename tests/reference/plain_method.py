"""One training path for DINO, CrIBo and S3PT with dense losses and a memory that is a list."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.reference import equations
from tests.reference.plain_vit import PlainViT


class PlainHead(nn.Module):
    """Parameters under the names of a checkpoint of the package."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )  # fmt: skip
        for level in ('image', 'object'):
            layer = nn.Module()
            layer.weight_v = nn.Parameter(torch.zeros(prototypes, bottleneck))
            layer.weight_g = nn.Parameter(torch.zeros(prototypes, 1))
            setattr(self, f'{level}_prototypes', layer)


class PlainMethod:
    """``step`` is one optimiser step; ``kind`` is 'dino', 'cribo' or 's3pt'."""

    def __init__(self, kind: str, state: dict, backbone: dict, head: dict, **settings) -> None:
        self.kind, self.vmf = kind, kind == 's3pt'
        vit = PlainViT(**backbone)
        self.student = nn.ModuleDict(dict(backbone=vit, head=PlainHead(**head))).double()
        state = {k[8:]: v.clone() for k, v in state.items() if k.startswith('student.')}
        missing, unexpected = self.student.load_state_dict(state, strict=False)
        assert not unexpected and all(kind == 'dino' and 'object' in name for name in missing)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.settings, self.memory = settings, []
        prototypes = head['prototypes']
        self.centers = {
            level: torch.zeros(prototypes, dtype=torch.float64) for level in ('image', 'object')
        }
        used = [
            p
            for name, p in self.student.named_parameters()
            if kind != 'dino' or 'object' not in name
        ]
        self.optimizer = torch.optim.AdamW(
            [
                dict(params=[p for p in used if p.ndim > 1]),
                dict(params=[p for p in used if p.ndim == 1], weight_decay=0.0),
            ],
            lr=settings['lr'],
        )

    def logits(self, network: nn.Module, rows: Tensor, level: str, tau: float) -> Tensor:
        """(n, P), with temperature."""
        layer = getattr(network['head'], f'{level}_prototypes')
        v, g = layer.weight_v, layer.weight_g
        if self.frozen:
            v, g = v.detach(), g.detach()
        weight = g * v / v.norm(dim=1, keepdim=True)
        out = F.normalize(network['head'].mlp(rows), dim=-1) @ weight.T / tau
        if self.vmf:
            out = out + equations.vmf_log_normalizer(g[:, 0].abs() / tau, v.shape[1])
        return out

    def teach(self, rows: Tensor, level: str) -> Tensor:
        shift = self.centers[level] if self.vmf else self.centers[level] / self.tau
        return (self.logits(self.teacher, rows, level, self.tau) - shift).softmax(1)

    def move_center(self, rows: Tensor, level: str) -> None:
        if len(rows) == 0:
            return
        # A centre of logits is one of logits without temperature.
        logits = self.logits(self.teacher, rows, level, self.tau) * (1 if self.vmf else self.tau)
        self.centers[level] = equations.moved_center(self.centers[level], logits, 0.9, self.vmf)

    def step(
        self, crops: list[Tensor], samples: list[dict], *, epoch: int, tau: float, frozen: bool,
        decay: float, momentum: float,
    ) -> dict[str, float]:  # fmt: skip
        self.tau, self.frozen, batch = tau, frozen, len(crops[0])
        with torch.no_grad():
            teacher = torch.stack([self.teacher['backbone'](crop) for crop in crops[:2]])
        student = [self.student['backbone'](crop) for crop in crops]
        losses = dict(
            loss_image=equations.multicrop_loss(
                [self.teach(view[:, 0], 'image') for view in teacher],
                [self.logits(self.student, crop[:, 0], 'image', 0.1) for crop in student],
            )
        )
        moves = [('image', teacher[:, :, 0].flatten(0, 1))]
        if self.kind != 'dino':
            tokens = teacher[:, :, 1:]
            self.members = members = self.cluster(tokens, samples, batch)
            taught = equations.pool(tokens, members)
            rows = torch.cat(equations.pool(torch.stack(student)[:, :, 1:], members), dim=1)
            objects = torch.cat(taught, dim=1)
            logits = [self.logits(self.student, rows[v], 'object', 0.1) for v in (0, 1)]
            losses['loss_cross_view'] = sum(
                equations.cross_entropy(self.teach(objects[v], 'object'), logits[1 - v]) / 2
                for v in (0, 1)
            )
            across = rows.new_zeros(())
            self.counts = []  # cycle-consistent objects of view 1 and of view 2
            for v in (0, 1) if epoch >= 1 and self.memory else ():
                found, kept = equations.neighbours(objects, self.memory, v)
                taught_rows = self.teach(found[kept], 'object')
                self.counts.append(int(kept.sum()))
                term = equations.cross_entropy(taught_rows, logits[1 - v][kept]) / 2
                if self.settings['divisor'] == 'first_view':
                    term = term * self.counts[v] / max(self.counts[0], 1)
                across = across + term
            losses['loss_cross_image'] = across
            moves.append(('object', objects.flatten(0, 1)))
            self.memory = (taught + self.memory)[: self.settings['queue_images']]
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        for parameter in self.student.parameters():
            if parameter.grad is not None:
                limit = self.settings['clip'] / (parameter.grad.norm() + 1e-6)
                parameter.grad *= min(float(limit), 1.0)
        with torch.no_grad():
            for level, moved in moves:
                self.move_center(moved, level)
        self.optimizer.param_groups[0]['weight_decay'] = decay
        self.optimizer.step()
        with torch.no_grad():
            pairs = zip(self.student.parameters(), self.teacher.parameters(), strict=True)
            for mine, old in pairs:
                old.copy_(momentum * old + (1 - momentum) * mine)
        return {name: float(value.detach()) for name, value in losses.items()}

    def cluster(self, tokens: Tensor, samples: list[dict], batch: int) -> Tensor:
        total = 2 * tokens.shape[2]
        first = [
            torch.randperm(total, generator=torch.Generator().manual_seed(int(s['sample_seed'])))
            for s in samples
        ]
        stacked = {name: torch.stack([s[name] for s in samples]).flatten(1, 2)
                   for name in ('token_xy', 'token_depth', 'token_has_depth')}  # fmt: skip
        return equations.cluster(
            tokens.transpose(0, 1).flatten(1, 2),
            stacked['token_xy'],
            torch.stack(first)[:, : self.settings['clusters']],
            iterations=1 if self.vmf else 5,
            depth=stacked['token_depth'],
            has=stacked['token_has_depth'],
            depth_weight=4.0 if self.vmf else 0.0,
        )


def cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
