"""Keyed sampling and training loops that resume exactly. Import this room through
``custom_imports``."""

from .exact_loops import ExactEpochTrainLoop, ExactIterTrainLoop
from .keyed_sampler import KeyedIndex, KeyedSampler

__all__ = ['ExactEpochTrainLoop', 'ExactIterTrainLoop', 'KeyedIndex', 'KeyedSampler']
