"""Files are whole or absent, follow umask, and killed writers' leftovers go."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from s3pt_mm.common import files
from s3pt_mm.common.errors import explain
from s3pt_mm.common.processes import alive, machine


def limited(action, limit=20_000):
    """Runs ``action`` where no file may grow beyond ``limit`` bytes."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        return action()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / 'made' / 'report.json'
    files.write_json(path, {'a': float('nan'), 'b': [1, (2.5,)]})
    assert json.loads(path.read_text()) == {'a': None, 'b': [1, [2.5]]}
    with files.replacing(path) as temporary:
        temporary.write_text('half')
        assert json.loads(path.read_text())['b'] == [1, [2.5]]
    assert path.read_text() == 'half'
    assert os.listdir(path.parent) == ['report.json']


def test_a_failed_writer_changes_nothing_and_leaves_nothing(tmp_path):
    path = tmp_path / 'a'
    files.write_text(path, 'old')
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text('new')
        raise KeyboardInterrupt
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a']


def test_json_that_cannot_be_written_keeps_the_old_file(tmp_path):
    path = tmp_path / 'a.json'
    files.write_json(path, [1])
    with pytest.raises(OSError, match='File too large'):
        limited(lambda: files.write_json(path, list(range(20_000))))
    assert json.loads(path.read_text()) == [1]
    assert os.listdir(tmp_path) == ['a.json']


def test_torch_errors_of_a_full_disk_become_the_systems(tmp_path):
    """torch.save reports ``unexpected pos`` where the disk is full."""
    path = tmp_path / 'a.pth'

    def save():
        with files.replacing(path) as temporary, open(temporary, 'wb') as file:
            torch.save(torch.zeros(10_000), file)

    with pytest.raises(OSError) as error:
        limited(save)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
    assert explain(error.value).startswith(f'{path}: File too large. ')
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('umask', [0o022, 0o002, 0o077])
def test_permissions_follow_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write_bytes(tmp_path / 'a', b'')
    finally:
        os.umask(before)
    assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o666 & ~umask


def test_names_that_are_not_utf8_are_written_readable(tmp_path):
    files.write_text(tmp_path / 'a', os.fsdecode(b'caf\xe9.jpg'))
    assert (tmp_path / 'a').read_text() == 'caf\\udce9.jpg'


def leave(folder, name, machine_name, process, *, days_ago=0.0):
    path = folder / f'.{name}.{machine_name}.{process}.partial'
    path.mkdir()
    (path / 'inside').write_text('')
    then = time.time() - 24 * 3600 * days_ago
    for item in (path / 'inside', path):
        os.utime(item, (then, then))
    return path


def test_leftovers_of_dead_writers_go_and_others_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    gone = leave(tmp_path, 'set', machine(), dead.pid)
    old = leave(tmp_path, 'set', 'other-host-00000000', 1, days_ago=2)
    leave(tmp_path, 'set', machine(), os.getpid())
    # This process number is nobody's here, but the writer is another host's.
    leave(tmp_path, 'set', 'other-host-00000000', dead.pid)
    other = leave(tmp_path, 'set.b', machine(), dead.pid)
    assert set(files.remove_leftovers(tmp_path, 'set')) == {gone, old}
    assert files.remove_leftovers(tmp_path) == [other]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_next_writer_of_a_file_removes_what_a_killed_one_left(tmp_path):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    (tmp_path / f'.a.{machine()}.{dead.pid}.partial').write_text('half')
    files.write_text(tmp_path / 'a', 'whole')
    assert os.listdir(tmp_path) == ['a']
    assert alive(os.getpid())


@pytest.mark.parametrize(
    ('number', 'words'),
    [
        (errno.ENOSPC, 'No space left on device. Make room'),
        (errno.EROFS, 'Read-only file system. It is read-only'),
        (errno.EACCES, 'Permission denied. Choose a place that you may write to'),
    ],
)
def test_errors_say_what_to_do(tmp_path, number, words):
    error = OSError(number, os.strerror(number), str(tmp_path / 'absent' / 'a'))
    assert words in explain(error)
    assert '\n' not in explain(error)


def test_a_file_in_a_folders_place(tmp_path):
    (tmp_path / 'a').write_text('')
    with pytest.raises(OSError) as error:
        files.write_text(tmp_path / 'a' / 'b', '')
    assert 'A file lies where a folder is needed' in explain(error.value)
