"""Nothing that a file brings is ever run, and files are whole or absent."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.reading import UnsafeCheckpointError, read_checkpoint
from s3pt_mm.hosts import compat
from s3pt_mm.weights.files import write_weights


class _Attack:
    """Writes a file when unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple:
        return os.system, (f'touch {self.victim}',)


@pytest.mark.parametrize('new_format', [True, False], ids=['zip', 'legacy'])
def test_malicious_checkpoint_runs_nothing(new_format, tmp_path) -> None:
    """The attack works on plain pickle and does not on ours; file and global are named."""
    victim, path = tmp_path / 'victim', tmp_path / 'evil.pth'
    content = dict(state_dict=dict(w=torch.ones(2)), meta=_Attack(victim))
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    refused = r'evil\.pth: refused.*(posix|os)\.system'
    with pytest.raises(UnsafeCheckpointError, match=refused) as info:
        read_checkpoint(path)
    assert 'weights_only' not in str(info.value)
    assert not victim.exists()
    pickle.loads(pickle.dumps(_Attack(victim)))
    assert victim.exists()


def test_resuming_and_pretrained_weights_run_nothing(tmp_path) -> None:
    """``load_from``, ``--resume`` and ``init_cfg`` go through mmengine's loader."""
    compat.apply()
    victim, path = tmp_path / 'victim', tmp_path / 'evil.pth'
    torch.save(dict(state_dict=dict(w=torch.ones(2)), meta=_Attack(victim)), path)
    with pytest.raises(UnsafeCheckpointError, match=r'(posix|os)\.system'):
        CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    assert not victim.exists()


def test_bare_pickle_runs_nothing(tmp_path) -> None:
    """A pickle that torch never wrote."""
    victim, path = tmp_path / 'victim', tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps(_Attack(victim), protocol=2))
    with pytest.raises(DataError, match='evil.pkl'):
        read_checkpoint(path)
    assert not victim.exists()


def test_builtin_getattr_is_no_way_in(tmp_path) -> None:
    """getattr, which mmengine's own files name, reaches nothing else."""

    class Reach:
        def __reduce__(self) -> tuple:
            return getattr, (torch.Tensor, '__init__')

    torch.save(dict(x=Reach()), tmp_path / 'reach.pth')
    with pytest.raises(UnsafeCheckpointError, match='reach.pth: refused.*getattr'):
        read_checkpoint(tmp_path / 'reach.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_torn_file_is_named(suffix, tmp_path) -> None:
    """Half a file is an error with the file's name, not a half-filled network."""
    path = tmp_path / f'weights{suffix}'
    write_weights({'w': torch.randn(1000)}, path, {})
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match=f'weights{suffix}: (not a whole|altered)'):
        read_checkpoint(path)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_round_trip_stores_views_small(suffix, tmp_path) -> None:
    """Values come back; a slice of a large tensor does not take the large tensor along."""
    large = torch.randn(100_000)
    path = tmp_path / f'weights{suffix}'
    write_weights({'a': large[:10], 'b': large[5:15]}, path, {'note': 'x'})
    back = read_checkpoint(path)
    back = back.get('state_dict', back)
    assert torch.equal(back['a'], large[:10]) and torch.equal(back['b'], large[5:15])
    assert path.stat().st_size < 10_000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_not_a_mapping_and_absent(tmp_path) -> None:
    """A lone tensor, and nothing at all."""
    torch.save(torch.ones(3), tmp_path / 'tensor.pth')
    with pytest.raises(DataError, match='tensor.pth: holds a Tensor'):
        read_checkpoint(tmp_path / 'tensor.pth')
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        read_checkpoint(tmp_path / 'absent.pth')
