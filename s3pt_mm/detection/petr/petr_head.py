"""PETR's head: queries from 3D reference points meet image tokens that know where they look.

The network; targets and losses are in :mod:`~s3pt_mm.detection.petr.petr_loss`. Tokens are kept
(B, tokens, C) throughout, so the 1 x 1 convolutions of the original are matrix products here; their
weights keep the convolutions' names and shapes, which the published checkpoint has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmdet.models.layers import inverse_sigmoid
from mmdet3d.registry import MODELS, TASK_UTILS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.model import BaseModule, ModuleDict, bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn

from s3pt_mm.detection.petr.box_coder import CODE_SIZE
from s3pt_mm.detection.petr.petr_loss import SetLoss
from s3pt_mm.detection.petr.position_embedding import (
    FrustumCache,
    depth_bins,
    reference_embedding,
    sine_embedding,
    stack_lidar2img,
    view_positions,
)
from s3pt_mm.detection.petr.tokens import padding_of_tokens, pointwise, recomputed


@MODELS.register_module()
class S3PTPETRHead(BaseModule):
    """Detection head of PETR (arXiv 2203.05625).

    Args:
        num_classes: Classes, without background.
        in_channels: Channels of the feature map.
        embed_dims: Hidden width C; supplement, Table 4: 384 for ViT-S, 768 for ViT-B.
        num_query: Queries; Table 4: 900.
        pc_range: (x0, y0, z0, x1, y1, z1), metres: where reference points and boxes lie.
        position_range: The same of the frustum points' box.
        depth_num: Depths of each ray.
        depth_start: First depth, metres.
        decoder: Config of the decoder, without ``embed_dims``.
        bbox_coder: Config of the box coder.
        assigner: Config of the assigner.
        loss_cls: Config of the classification loss, with sigmoid.
        loss_bbox: Config of the regression loss.
        code_weights: Ten weights of the code in the regression loss.
        num_fcs: Hidden layers of each branch.
        cache_size: Calibrations whose frustum points are kept.
        init_cfg: mmengine's.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        pc_range: Sequence[float],
        bbox_coder: dict,
        assigner: dict,
        loss_cls: dict,
        loss_bbox: dict,
        embed_dims: int = 256,
        num_query: int = 900,
        position_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
        depth_num: int = 64,
        depth_start: float = 1.0,
        decoder: dict | None = None,
        code_weights: Sequence[float] = (1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2),
        num_fcs: int = 2,
        cache_size: int = 16,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if embed_dims % 4:
            raise ValueError(f'embed_dims must be a multiple of 4, got {embed_dims}')
        self.num_feats = embed_dims // 2
        self.embed_dims = embed_dims
        self.register_buffer('code_weights', torch.tensor(code_weights, dtype=torch.float32))
        # Not in the state dict, which is the published one's.
        self.register_buffer('pc_range', torch.tensor(pc_range).view(2, 3), persistent=False)
        self.frustums = FrustumCache(
            depths=depth_bins(depth_num, depth_start, position_range[3]),
            position_range=position_range,
            max_entries=cache_size,
        )
        self.bbox_coder = TASK_UTILS.build(bbox_coder)
        self.criterion = SetLoss(
            num_classes=num_classes, assigner=assigner, loss_cls=loss_cls, loss_bbox=loss_bbox
        )

        def mlp(inputs: int, hidden: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, embed_dims, 1)
            )

        self.input_proj = nn.Conv2d(in_channels, embed_dims, 1)
        self.position_encoder = mlp(3 * depth_num, 4 * embed_dims)
        self.adapt_pos3d = mlp(3 * self.num_feats, 4 * embed_dims)
        self.reference_points = nn.Embedding(num_query, 3)
        self.query_embedding = nn.Sequential(
            nn.Linear(3 * self.num_feats, embed_dims), nn.ReLU(), nn.Linear(embed_dims, embed_dims)
        )
        decoder = {'type': 'mmdet3d.S3PTPETRDecoder', 'embed_dims': embed_dims} | (decoder or {})
        self.transformer = ModuleDict({'decoder': MODELS.build(decoder)})
        layers = self.transformer['decoder'].num_layers
        # One branch serves every layer; the published checkpoint names it once for each.
        self.cls_branches = nn.ModuleList([self._cls_branch(num_classes, num_fcs)] * layers)
        self.reg_branches = nn.ModuleList([self._reg_branch(num_fcs)] * layers)

    def _cls_branch(self, num_classes: int, num_fcs: int) -> nn.Sequential:
        width = self.embed_dims
        layers: list[nn.Module] = []
        for _ in range(num_fcs):
            layers += [nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Linear(width, num_classes))

    def _reg_branch(self, num_fcs: int) -> nn.Sequential:
        width = self.embed_dims
        layers: list[nn.Module] = []
        for _ in range(num_fcs):
            layers += [nn.Linear(width, width), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Linear(width, CODE_SIZE))

    def init_weights(self) -> None:
        """Reference points uniform in the range, class scores at 1 %; the decoder's as in DETR."""
        super().init_weights()
        nn.init.uniform_(self.reference_points.weight, 0, 1)
        nn.init.constant_(self.cls_branches[0][-1].bias, bias_init_with_prob(0.01))

    def frustum_embedding(
        self, metas: Sequence[Mapping], num_views: int, size: tuple[int, int]
    ) -> Tensor:
        """3D position embedding of the image tokens.

        Args:
            metas: Of each sample, ``lidar2img`` (V, 4, 4) and ``pad_shape``.
            num_views: V.
            size: (h, w) of the feature map.

        Returns:
            (B, V h w, C).
        """
        device = self.code_weights.device
        entries = [
            self.frustums.lookup(matrices, tuple(meta['pad_shape'][:2]), size, device)
            for meta, matrices in zip(metas, stack_lidar2img(metas, num_views), strict=True)
        ]
        first, _, second = self.position_encoder

        def encode(points: Tensor) -> Tensor:
            return pointwise(second, F.relu(pointwise(first, points), inplace=True))

        embedding = [
            recomputed(encode, view) for points in entries for view in points.chunk(num_views)
        ]
        return torch.stack(embedding).unflatten(0, (len(metas), num_views)).flatten(1, 2)

    def view_embedding(
        self, num_views: int, size: tuple[int, int], padding: Tensor | None = None
    ) -> Tensor:
        """Sine embedding of (view, row, column) through its MLP.

        Without padding the three numbers do not depend on each other, so the MLP's first layer acts
        on V + h + w vectors, whose sums it gives for all V h w tokens.

        Args:
            num_views: V.
            size: (h, w) of the feature map.
            padding: (B, V, h, w) bool; None: no token is padding.

        Returns:
            (B, V h w, C), or (1, V h w, C) without padding.
        """
        first, _, second = self.adapt_pos3d
        weights = first.weight.flatten(1).chunk(3, 1)
        valid = torch.ones(1, num_views, *size, device=first.weight.device)
        if padding is not None:
            valid = (~padding).float()
        parts = []
        for axis, weight in zip((1, 2, 3), weights, strict=True):
            positions = view_positions(valid, axis)
            if padding is None:
                shape = [1, 1, 1, 1]
                shape[axis] = valid.shape[axis]
                positions = positions.movedim(axis, 0).flatten(1)[:, 0].view(shape)
            sines = sine_embedding(positions, self.num_feats, interleave=False)
            parts.append(F.linear(sines, weight))

        def encode(view: Tensor, row: Tensor, column: Tensor) -> Tensor:
            hidden = F.relu(view + row + column + first.bias)
            return pointwise(second, hidden).flatten(1, 2)

        view, row, column = parts
        embedding = [
            recomputed(encode, view[:, v], row[:, v % row.shape[1]], column[:, v % column.shape[1]])
            for v in range(num_views)
        ]
        return torch.cat(embedding, 1)

    def forward(self, feature: Tensor, metas: Sequence[Mapping]) -> dict[str, Tensor]:
        """Scores and codes of all queries after each decoder layer.

        Args:
            feature: (B, V, in_channels, h, w).
            metas: Of each sample, ``lidar2img`` (V, 4, 4), ``img_shape`` and ``pad_shape``.

        Returns:
            ``all_cls_scores`` (layers, B, Q, classes), logits; ``all_bbox_preds``
            (layers, B, Q, 10), codes in metres, see :mod:`~s3pt_mm.detection.petr.box_coder`.
        """
        num_views, size = feature.shape[1], tuple(feature.shape[-2:])
        image_size = tuple(metas[0]['pad_shape'][:2])
        mask = padding_of_tokens(metas, num_views, image_size, size)
        padding = torch.from_numpy(mask).to(feature.device) if mask.any() else None

        tokens = pointwise(self.input_proj, feature.permute(0, 1, 3, 4, 2).flatten(1, 3))
        keys = tokens + self.frustum_embedding(metas, num_views, size)
        keys = keys + self.view_embedding(num_views, size, padding)
        points = self.reference_points.weight
        queries = self.query_embedding(reference_embedding(points, self.num_feats))
        outputs = self.transformer['decoder'](
            queries.expand(len(feature), -1, -1),
            keys,
            tokens,
            None if padding is None else padding.flatten(1),
        )
        scores = self.cls_branches[0](outputs).float()
        codes = self.reg_branches[0](outputs).float()
        return {'all_cls_scores': scores, 'all_bbox_preds': self._place(codes, points)}

    def _place(self, codes: Tensor, points: Tensor) -> Tensor:
        """Moves the centres of codes from offsets at reference points to metres."""
        low, high = self.pc_range
        offsets = torch.cat((codes[..., :2], codes[..., 4:5]), -1)
        centre = (offsets + inverse_sigmoid(points)).sigmoid() * (high - low) + low
        return torch.cat((centre[..., :2], codes[..., 2:4], centre[..., 2:], codes[..., 5:]), -1)

    def loss(self, feature: Tensor, data_samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """Losses of a batch; see :meth:`forward` and :class:`SetLoss`."""
        outputs = self(feature, [sample.metainfo for sample in data_samples])
        instances = [sample.gt_instances_3d for sample in data_samples]
        return self.criterion(**outputs, instances=instances, code_weights=self.code_weights)

    @torch.no_grad()
    def predict(
        self, feature: Tensor, data_samples: Sequence[Det3DDataSample]
    ) -> list[InstanceData]:
        """Boxes of each sample.

        Args:
            feature: (B, V, in_channels, h, w).
            data_samples: Their metainfo; see :meth:`forward`.

        Returns:
            Of each sample, ``bboxes_3d`` (LiDAR boxes with velocity, z at the bottom as mmdet3d
            has it), ``scores_3d`` and ``labels_3d``, best first.
        """
        metas = [sample.metainfo for sample in data_samples]
        outputs = self(feature, metas)
        results = []
        for index, meta in enumerate(metas):
            boxes, scores, labels = self.bbox_coder.decode(
                outputs['all_cls_scores'][-1, index], outputs['all_bbox_preds'][-1, index]
            )
            box_type = meta.get('box_type_3d', LiDARInstance3DBoxes)
            boxes = box_type(boxes, box_dim=boxes.shape[-1], origin=(0.5, 0.5, 0.5))
            results.append(InstanceData(bboxes_3d=boxes, scores_3d=scores, labels_3d=labels))
        return results
