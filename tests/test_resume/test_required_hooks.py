"""A loop does not start a model whose necessary hook a config has lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn
from torch.utils.data import DataLoader

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.method.algorithms import DINO
from s3pt_mm.method.hooks import TeacherUpdateHook, TrainingLogHook
from s3pt_mm.resume.exact_resume import ExactResume


class Needy(nn.Module):
    """What the loop reads of a pre-training model."""

    required_hooks = DINO.required_hooks


class Loop(ExactResume):
    """As little of a loop as may be made."""

    def run(self) -> None:
        """Not asked here."""


def start(model: nn.Module, *hooks: object) -> None:
    loop = Loop(SimpleNamespace(model=model, hooks=list(hooks)), DataLoader([0]))
    loop._iter = 0
    loop._go_on()


def test_no_teacher_update_is_an_error_that_names_the_hook_and_the_line() -> None:
    with pytest.raises(ConfigError, match=r'without TeacherUpdateHook.*teacher_update=dict\(type'):
        start(Needy(), TrainingLogHook())


def test_the_hook_or_one_derived_from_it_is_enough() -> None:
    class Own(TeacherUpdateHook):
        pass

    start(Needy(), TeacherUpdateHook())
    start(Needy(), Own())
    start(nn.Linear(1, 1))  # nothing needed
