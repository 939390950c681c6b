"""The look at a GPU runs here, too: its sections, its limits, what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tools.dev import gpu_check
from tools.dev.stopwatch import interleaved

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_section_that_fails_or_hangs_stops_nothing(monkeypatch, tmp_path, capsys) -> None:
    def broken(self) -> None:
        raise ValueError('no such unit')

    monkeypatch.setattr(gpu_check.Check, 'parity', broken)
    monkeypatch.setattr(gpu_check.Check, 'recipe', lambda self: time.sleep(60))
    monkeypatch.setattr(gpu_check.Check, 'machine', lambda self: self.say('machine', card='CPU'))
    out = tmp_path / 'out.jsonl'
    words = ['--device', 'cpu', '--tiny', '--budget', '1', '--out', str(out)]
    assert gpu_check.main([*words, '--only', 'parity', 'recipe', 'machine']) == 1
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[0]['error'] == 'ValueError: no such unit'
    assert lines[1]['error'] == 'TimeoutError: over 1 s'
    assert capsys.readouterr().out.count('\n') == 3


def test_tasks_are_timed_in_turn() -> None:
    calls = []
    found = interleaved({'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, 2)
    assert calls == ['a', 'b'] * 3 and found['a'].ratio == 1.0 and found['b'].wall >= 0


@pytest.mark.slow
def test_every_section_on_a_cpu(tmp_path) -> None:
    out = tmp_path / 'out.jsonl'
    command = [sys.executable, str(REPOSITORY / 'tools/dev/gpu_check.py'), '--device', 'cpu']
    done = subprocess.run(
        [*command, '--tiny', '--out', str(out), '--budget', '800'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [*dict.fromkeys(line['section'] for line in lines)] == list(gpu_check.SECTIONS)
    by_section = {line['section']: line for line in lines}
    assert by_section['training']['rc'] == 0
    parity = [line for line in lines if line['section'] == 'parity']
    assert parity[0]['worst'][0] < 1e-3 and parity[1]['median_error'] < 0.2
    assert all(line['largest_difference'] == 0 for line in lines if line['section'] == 'repeatable')
    assert torch.isfinite(torch.tensor(by_section['probes']['seconds']['PETR step']))
