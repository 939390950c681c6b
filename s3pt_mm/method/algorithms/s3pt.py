"""S3PT (WACV 2025, arXiv 2410.23085): CrIBo with parts exchanged for driving scenes."""

from __future__ import annotations

from typing import Any

from mmpretrain.registry import MODELS

from s3pt_mm.method.algorithms.cribo import CrIBo

# What S3PT exchanges (supplement, Tables 1-3); everything else is CrIBo's.
CLUSTERING = dict(num_clusters=128, sinkhorn_iterations=1, depth_weight=4.0)


@MODELS.register_module()
class S3PT(CrIBo):
    """CrIBo + semantic distribution consistency + object diversity consistency + depth guidance.

    * vMF prototypes and a centre in probability space: frequent and rare classes may have
      clusters of different concentration.
    * 128 clusters, one Sinkhorn iteration, 2,500 images in memory: many loosely balanced
      clusters. The five rounds merge most of them again: docs/clusters.md has what is left, and
      what small objects need.
    * LiDAR depth in the clustering cost (weight 4): clusters keep to a distance.

    Args:
        head: As in CrIBo; ``prototype_kind`` defaults to 'vmf'.
        clustering: Overrides of S3PT's clustering settings.
        center_space: Defaults to 'probability'.
        queue_images: Defaults to 2,500.
        **kwargs: Of :class:`CrIBo`.
    """

    def __init__(
        self,
        *,
        head: dict,
        clustering: dict | None = None,
        center_space: str = 'probability',
        queue_images: int = 2500,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            head={'prototype_kind': 'vmf', **head},
            clustering={**CLUSTERING, **(clustering or {})},
            center_space=center_space,
            queue_images=queue_images,
            **kwargs,
        )
