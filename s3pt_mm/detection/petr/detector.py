"""The PETR detector: images of all cameras in, 3D boxes out (arXiv 2203.05625)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from s3pt_mm.detection.petr.grid_mask import GridMask


@MODELS.register_module()
class S3PTPETR(Base3DDetector):
    """Image backbone, optional neck and PETR head.

    The head sees the first feature map of neck or backbone alone.

    Args:
        img_backbone: Config of the image backbone, e.g. ``mmpretrain.FrozenVisionTransformer``.
        pts_bbox_head: Config of the head. (Names of weights follow mmdetection3d's PETR, which
            inherits ``img_`` and ``pts_`` from multi-modal detectors.)
        img_neck: Config of the neck; a ViT's single map needs none.
        grid_mask: Arguments of :class:`GridMask`; None: no mask.
        data_preprocessor: Config, ``mmdet3d.Det3DDataPreprocessor``.
        train_cfg: Unused; mmdet3d's ``init_model`` hands it to every detector.
        init_cfg: mmengine's.
    """

    def __init__(
        self,
        *,
        img_backbone: dict,
        pts_bbox_head: dict,
        img_neck: dict | None = None,
        grid_mask: dict | None = None,
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = None if img_neck is None else MODELS.build(img_neck)
        self.pts_bbox_head = MODELS.build(pts_bbox_head)
        self.grid_mask = None if grid_mask is None else GridMask(**grid_mask)

    def extract_feat(self, batch_inputs: dict[str, Tensor]) -> Tensor:
        """The feature map that the head sees.

        Args:
            batch_inputs: ``imgs`` (B, V, 3, H, W), normalised.

        Returns:
            (B, V, C, h, w).

        Raises:
            ValueError: No images of several cameras, or sizes that are no multiple of the feature
                map's: each feature would look along another ray than its pixels.
        """
        images = batch_inputs.get('imgs')
        if images is None or images.dim() != 5:
            raise ValueError(
                'PETR needs `imgs` of shape (B, cameras, 3, H, W), got '
                f'{None if images is None else tuple(images.shape)}; load the samples with '
                'LoadSurroundImages and list img in the keys of Pack3DDetInputs'
            )
        flat = images.flatten(0, 1)
        if self.grid_mask is not None:
            flat = self.grid_mask(flat)
        features = self.img_backbone(flat)
        if self.img_neck is not None:
            features = self.img_neck(features)
        sizes = flat.shape[-2:], features[0].shape[-2:]
        if any(side % cells for side, cells in zip(*sizes, strict=True)):
            raise ValueError(
                f'images of {tuple(sizes[0])} pixels give features of {tuple(sizes[1])}: set '
                'model.data_preprocessor.pad_size_divisor to the patch size'
            )
        return features[0].unflatten(0, images.shape[:2])

    def loss(
        self, batch_inputs: dict[str, Tensor], data_samples: Sequence[Det3DDataSample]
    ) -> dict[str, Tensor]:
        """Losses of a training step; see the head."""
        return self.pts_bbox_head.loss(self.extract_feat(batch_inputs), data_samples)

    def predict(
        self, batch_inputs: dict[str, Tensor], data_samples: list[Det3DDataSample]
    ) -> list[Det3DDataSample]:
        """The samples with ``pred_instances_3d``; see the head."""
        results = self.pts_bbox_head.predict(self.extract_feat(batch_inputs), data_samples)
        return self.add_pred_to_datasample(data_samples, results)

    @torch.no_grad()
    def _forward(
        self, batch_inputs: dict[str, Tensor], data_samples: Sequence[Det3DDataSample]
    ) -> dict[str, Tensor]:
        """Raw outputs of the head (mode 'tensor')."""
        metas = [sample.metainfo for sample in data_samples]
        return self.pts_bbox_head(self.extract_feat(batch_inputs), metas)
