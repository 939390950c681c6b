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
    torch.save({'number': torch.tensor(number)}, files.temporary_path(path))
    files.commit(files.temporary_path(path), path, iteration=number)


def test_newest_first_by_time_of_saving_not_by_name_or_mtime(folder):
    os.utime(folder / 'iter_2.pth')
    (folder / 'best_acc_iter_9.pth').write_bytes(b'')
    (folder / '.iter_11.pth.tmp').write_bytes(b'')
    found = files.find_checkpoints(folder, ['iter_{}.pth'])
    assert [c.path.name for c in found] == ['iter_9.pth', 'iter_10.pth', 'iter_2.pth']
    assert files.find_checkpoints(folder / 'absent', ['iter_{}.pth']) == []


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

    monkeypatch.setattr(files.os, 'replace', crash)
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
