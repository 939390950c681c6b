"""Randomness of a sample keyed by (seed, epoch, index), for the pipelines of every library."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SeedFromIndex(BaseTransform):
    """Seed python, NumPy and torch from the sample's key; first in every training pipeline.

    ``results['sample_idx']`` is the index that the sampler gave. If it carries the attributes
    ``seed`` and ``epoch`` (``KeyedSampler``), the three global CPU generators are seeded from
    (seed, epoch, index), so that the sample depends neither on workers, ranks nor on where a run
    was resumed. A plain int leaves the global state alone.

    Writes ``results['sample_seed']``, int64 and not negative: the key's own number, from which the
    algorithm draws the image's first centroids. For a plain int it follows from the state of
    NumPy's generator, which is not advanced.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        index = results['sample_idx']
        if hasattr(index, 'seed') and hasattr(index, 'epoch'):
            key = np.random.SeedSequence((int(index.seed), int(index.epoch), int(index)))
            words = key.generate_state(5, np.uint32).tolist()
            random.seed(words[0])
            np.random.seed(words[1])
            # Not torch.manual_seed: it would seed the accelerator too, whose generator belongs to
            # the model.
            torch.default_generator.manual_seed(words[2])
            sample_seed = (words[3] << 32 | words[4]) >> 1
        else:
            probe = np.random.RandomState()
            probe.set_state(np.random.get_state())
            sample_seed = probe.randint(2**63 - 1, dtype=np.int64)
        results['sample_seed'] = np.int64(sample_seed)
        return results
