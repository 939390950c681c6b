"""verify() refuses what was altered, with or without a checksum file."""

import subprocess
import zipfile

import pytest
import torch

from s3pt_mm.common import checksums
from s3pt_mm.common.errors import DataError
from s3pt_mm.common.reading import read_checkpoint


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'w.pth'
    torch.save({'w': torch.full((4,), 0.219)}, path)
    return path


def flip(path):
    """One bit of the stored number, which torch.load does not notice."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor(0.219).numpy().tobytes()) + 3] ^= 64
    path.write_bytes(content)
    assert float(torch.load(path)['w'][0]) > 1e37


@pytest.mark.parametrize('with_checksum', [True, False])
def test_a_flipped_bit_is_refused(weights, with_checksum):
    if with_checksum:
        checksums.write_checksum(weights, [checksums.sha256(weights)], 'iter 3 run ab')
        assert checksums.read_checksum(weights)[1] == 'iter 3 run ab'
    checksums.verify(weights)
    flip(weights)
    with pytest.raises(DataError, match='w.pth: .*altered.*Copy it again'):
        checksums.verify(weights)


def test_files_of_others_are_left_to_their_readers(tmp_path):
    torch.save({}, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    checksums.verify(tmp_path / 'old.pth')
    with pytest.raises(DataError, match='it has no old.pth.sha256|torn'):
        checksums.write_checksum(tmp_path / 'old.pth', ['0' * 64], '')
        checksums.verify(tmp_path / 'old.pth')


def test_checksum_file_is_the_standard_format(weights):
    checksums.write_checksum(weights, [checksums.sha256(weights)], 'iter 3')
    done = subprocess.run(
        ['sha256sum', '-c', '--strict', 'w.pth.sha256'],
        cwd=weights.parent,
        capture_output=True,
        text=True,
    )
    assert done.stdout == 'w.pth: OK\n', done.stderr


@pytest.mark.parametrize(
    'header',
    [
        b'[]', b'{"__metadata__": []}', b'{"__metadata__": {"sha256": 5}}', b'[' * 100_000, b'null',
        b'{"__metadata__": "x"}',
    ],
)  # fmt: skip
def test_odd_headers_are_their_readers_affair(tmp_path, header):
    path = tmp_path / 'x.safetensors'
    path.write_bytes(len(header).to_bytes(8, 'little') + header)
    with pytest.raises(DataError, match=r'x\.safetensors: (not a whole|altered)'):
        read_checkpoint(path)


def test_a_directory_of_members_that_is_no_text(weights):
    """``--resume`` ended in zipfile's UnicodeDecodeError; it passes over such a file."""
    content = bytearray(weights.read_bytes())
    directory = content.rindex(b'PK\x01\x02')
    content[directory + 46 : directory + 48] = b'\xff\xfe'  # the last member's name
    content[directory + 9] |= 8  # which says that it is UTF-8
    weights.write_bytes(content)
    with pytest.raises(UnicodeDecodeError):
        zipfile.ZipFile(weights)
    with pytest.raises(DataError, match=r'w\.pth: torn or not a torch checkpoint'):
        checksums.verify(weights)
