"""Files that are whole or absent."""

import os
import subprocess

import pytest
import torch

from s3pt_mm.resume import checkpoint_files as files


@pytest.fixture
def folder(tmp_path):
    for number in (2, 10, 9):  # written in this order: 9 is the newest
        write(tmp_path / f'iter_{number}.pth', number)
    return tmp_path


def write(path, number):
    content = {'number': torch.tensor(number)}
    files.write_checkpoint(content, path, iteration=number, run='mine')


def test_the_furthest_first_whatever_a_clock_said(folder):
    os.utime(folder / 'iter_2.pth')
    (folder / 'best_acc_iter_9.pth').write_bytes(b'')
    (folder / '.iter_11.pth.tmp').write_bytes(b'')
    found = files.find_checkpoints(folder, ['iter_{}.pth'])
    assert [c.path.name for c in found] == ['iter_10.pth', 'iter_9.pth', 'iter_2.pth']
    assert files.find_checkpoints(folder / 'absent', ['iter_{}.pth']) == []


def test_a_foreign_checkpoint_is_placed_by_what_it_holds(folder):
    torch.save({'meta': {'iter': 5}}, folder / 'epoch_100.pth')
    (folder / 'epoch_7.pth').write_bytes(b'torn')
    found = files.find_checkpoints(folder)
    assert [c.iteration for c in found] == [10, 9, 5, 2, -1]
    assert found[2].run is None
    assert [c.iteration for c in files.find_checkpoints(folder, run='mine')] == [10, 9, 2]


def test_the_last_run_is_the_one_that_saved_last(folder):
    """A new run in a finished one's folder has not come as far, and is the one to go on with."""
    for number in (1, 3):
        content = {'number': torch.tensor(number)}
        files.write_checkpoint(content, folder / f'iter_{number}.pth', iteration=number, run='new')
    assert files.newest_whole(folder).name == 'iter_10.pth'
    (folder / 'last_checkpoint').write_text('/moved/elsewhere/iter_1.pth')
    assert files.newest_whole(folder).name == 'iter_3.pth'
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_9.pth'))
    assert files.newest_whole(folder).name == 'iter_10.pth'


def test_another_runs_checkpoint_of_the_same_name_is_kept(folder):
    content = {'number': torch.tensor(77)}
    files.write_checkpoint(content, folder / 'iter_9.pth', iteration=9, run='other')
    assert torch.load(folder / 'iter_9.pth')['number'] == 77
    assert torch.load(folder / 'iter_9.kept_1.pth')['number'] == 9
    assert all(files.fault(folder / name) is None for name in ('iter_9.pth', 'iter_9.kept_1.pth'))


def test_checksum_file_is_the_standard_format(folder):
    done = subprocess.run(
        ['sha256sum', '-c', '--strict', 'iter_9.pth.sha256'],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'iter_9.pth: OK\n'


@pytest.mark.parametrize('with_checksum', [True, False])
@pytest.mark.parametrize('damage', ['cut', 'flip', 'empty', 'zeros'])
def test_damage_is_found(folder, damage, with_checksum):
    path = folder / 'iter_9.pth'
    assert files.fault(path) is None
    if not with_checksum:
        files.checksum_path(path).unlink()
        assert files.fault(path) is None
    content = bytearray(path.read_bytes())
    if damage == 'cut':
        content = content[: len(content) // 2]
    elif damage == 'flip':  # one bit of the stored tensor
        content[content.index((9).to_bytes(8, 'little'))] ^= 1
    elif damage == 'zeros':  # what some file systems leave after a power cut
        content = bytes(len(content))
    else:
        content = b''
    path.write_bytes(content)
    assert files.fault(path)
    if with_checksum:
        assert 'SHA-256' in files.fault(path)


def test_missing_file_is_a_fault(tmp_path):
    assert files.fault(tmp_path / 'iter_1.pth') == 'no such file'


@pytest.mark.parametrize('moment', ['checksum', 'rename', 'after'])
def test_a_crash_while_replacing_leaves_a_whole_file(folder, monkeypatch, moment):
    """Whatever moment ends the process, the name holds the old or the new checkpoint, and it
    verifies."""
    path = folder / 'iter_9.pth'
    real, count = os.replace, {'n': 0}

    def crash(source, target):
        count['n'] += 1
        at = {'checksum': 1, 'rename': 2, 'after': 3}[moment]
        if count['n'] == at:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, 'replace', crash)
    with pytest.raises(KeyboardInterrupt):
        write(path, 90)
    assert count['n'] == {'checksum': 1, 'rename': 2, 'after': 3}[moment]
    assert files.fault(path) is None
    expected = 90 if moment == 'after' else 9
    assert torch.load(path)['number'] == expected


def test_remove_takes_both(folder):
    files.remove(folder / 'iter_9.pth')
    files.remove(folder / 'iter_9.pth')
    assert sorted(p.name for p in folder.glob('iter_9*')) == []
