"""Two weights, four rows: what the launcher's tests train."""

from __future__ import annotations

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset


@MODELS.register_module(force=True)
class S3PTTestTinyModel(BaseModel):
    """A line."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> object:
        """Loss for training, a prediction a row for testing."""
        out = self.line(inputs)
        return dict(loss=out.square().mean()) if mode == 'loss' else [dict(y=y) for y in out]


@DATASETS.register_module(force=True)
class S3PTTestTinyRows(Dataset):
    """Four numbers."""

    def __init__(self, data_root: str = '', ann_file: str = '') -> None:
        self.rows = torch.arange(4.0)[:, None]

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.rows[index])


@METRICS.register_module(force=True)
class S3PTTestTinyMetric(BaseMetric):
    """Mean prediction."""

    def process(self, data_batch: object, data_samples: list[dict]) -> None:
        """Keep the predictions."""
        self.results += [float(sample['y']) for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict:
        """Mean."""
        return dict(mean=sum(results) / len(results))
