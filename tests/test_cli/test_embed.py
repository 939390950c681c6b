"""Tokens of any images in files that other tools read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s3pt_mm.cli import embed
from s3pt_mm.cli.images_in import open_image
from s3pt_mm.weights.any_vit import load_tokens
from s3pt_mm.weights.files import write_weights
from tests.test_common.test_files import limited


@pytest.fixture
def case(tmp_path: Path) -> tuple[list[str], torch.nn.Module]:
    """Command line without --out, and the network that it uses."""
    from mmpretrain.models import VisionTransformer

    torch.manual_seed(0)
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    model = VisionTransformer(arch=arch, img_size=32, patch_size=16, out_type='raw')
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    state = {f'teacher.backbone.{name}': value for name, value in model.state_dict().items()}
    write_weights(state, tmp_path / 'vit.pth', {})
    generator = np.random.default_rng(0)
    for name in ('b.png', 'a/c.jpg', 'a/a.jpg'):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(path)
    command = [str(tmp_path / 'vit.pth'), str(tmp_path / 'images'), '--image-size', '32', '48']
    command += ['--batch-size', '2', '--num-heads', '2', '--device', 'cpu']
    return command, load_tokens(tmp_path / 'vit.pth', num_heads=2)


def test_three_formats_hold_the_same_tokens(case, tmp_path: Path, capsys) -> None:
    import pyarrow.parquet as pq
    from safetensors.numpy import load_file

    command, model = case
    for ending in embed.FORMATS:
        assert embed.main([*command, '--out', str(tmp_path / f'out{ending}')]) == 0
    names = ['a/a.jpg', 'a/c.jpg', 'b.png']
    images = [embed.read_image(tmp_path / 'images' / name, (32, 48)) for name in names]
    (wanted,) = model(torch.stack(images))
    array = np.load(tmp_path / 'out.npy')
    assert array.shape == (3, 1 + 2 * 3, 16)
    np.testing.assert_allclose(array, wanted.numpy(), atol=5e-3)
    about = json.loads((tmp_path / 'out.json').read_text())
    assert about == dict(paths=names, grid=[2, 3])
    tensors = load_file(tmp_path / 'out.safetensors')
    np.testing.assert_array_equal(tensors['class_token'], array[:, 0])
    np.testing.assert_array_equal(tensors['patch_tokens'].reshape(3, 6, 16), array[:, 1:])
    table = pq.read_table(tmp_path / 'out.parquet')
    assert table['path'].to_pylist() == names
    np.testing.assert_array_equal(np.array(table['class_token'].to_pylist()), array[:, 0])
    patches = np.array(table['patch_tokens'].to_pylist()).reshape(3, 6, 16)
    np.testing.assert_array_equal(patches, array[:, 1:])
    assert 'class tokens and 2 x 3 patches of 3 images, 16 numbers' in capsys.readouterr().out
    assert not list(tmp_path.glob('.*parts'))


def test_a_stopped_run_goes_on(case, tmp_path: Path, capsys, monkeypatch) -> None:
    command, _ = case
    command = [*command, '--image-level', '--out', str(tmp_path / 'out.npy')]
    broken = tmp_path / 'images' / 'b.png'
    whole, stamp = broken.read_bytes(), broken.stat()
    read, seen = embed.read_image, []

    def stops(path: Path, size: tuple[int, int]) -> torch.Tensor:
        seen.append(path.name)
        if path.name == 'b.png' and len(seen) == 3:
            raise OSError('cable pulled')
        return read(path, size)

    monkeypatch.setattr(embed, 'read_image', stops)
    assert embed.main(command) == 1 and not (tmp_path / 'out.npy').exists()
    assert embed.main(command) == 0
    assert seen == ['a.jpg', 'c.jpg', 'b.png', 'b.png']  # the first batch was not read again
    array = np.load(tmp_path / 'out.npy').astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-2)
    broken.write_bytes(whole[:100])
    assert stamp.st_size > 100 and embed.main(command) == 1
    assert 'b.png: not a readable image' in capsys.readouterr().err


@pytest.mark.parametrize('torn', [['b.png'], ['a/a.jpg', 'a/c.jpg'], ['a/c.jpg']])
@pytest.mark.parametrize('ending', embed.FORMATS)
def test_torn_images_are_left_out_on_request(case, tmp_path, capsys, torn, ending) -> None:
    import pyarrow.parquet as pq
    from safetensors import safe_open

    command, _ = case
    out, whole = tmp_path / f'out{ending}', tmp_path / 'whole.npy'
    assert embed.main([*command, '--out', str(whole)]) == 0
    for name in torn:
        (tmp_path / 'images' / name).write_bytes(b'')
    if len(torn) == 2:  # a link that leads nowhere
        (tmp_path / 'images' / torn[0]).unlink()
        (tmp_path / 'images' / torn[0]).symlink_to('nowhere.jpg')
    assert embed.main([*command, '--out', str(out)]) == 1  # stops by default
    capsys.readouterr()
    assert embed.main([*command, '--out', str(out), '--on-error', 'skip']) == 0
    said = capsys.readouterr()
    assert [line.split(': ')[1] for line in said.err.splitlines() if 'left out' in line] == [
        str(tmp_path / 'images' / name) for name in torn
    ]
    assert f'of {3 - len(torn)} images, 16 numbers each; {len(torn)} left out' in said.out
    names = ['a/a.jpg', 'a/c.jpg', 'b.png']
    good = [index for index, name in enumerate(names) if name not in torn]
    wanted = np.load(whole)[good].astype(np.float32)
    if ending == '.npy':
        found, paths = np.load(out)[:, 0], json.loads(out.with_suffix('.json').read_text())['paths']
    elif ending == '.parquet':
        table = pq.read_table(out)
        found, paths = np.array(table['class_token'].to_pylist()), table['path'].to_pylist()
    else:
        with safe_open(out, 'numpy') as file:
            found, paths = file.get_tensor('class_token'), json.loads(file.metadata()['paths'])
    assert paths == [names[index] for index in good]
    np.testing.assert_allclose(found, wanted[:, 0], atol=5e-3)


def test_names_that_are_not_utf8(case, tmp_path) -> None:
    """Written, after all was computed, as readable escapes."""
    import pyarrow.parquet as pq

    command, _ = case
    (tmp_path / 'images' / 'b.png').rename(tmp_path / 'images' / os.fsdecode(b'caf\xe9.png'))
    for ending in embed.FORMATS:
        assert embed.main([*command, '--out', str(tmp_path / f'out{ending}')]) == 0
    assert 'caf\\udce9.png' in pq.read_table(tmp_path / 'out.parquet')['path'].to_pylist()


@pytest.mark.parametrize('ending', embed.FORMATS)
@pytest.mark.parametrize('limit', [10, 400])  # of a batch's file, and of the whole
def test_a_full_disk_is_one_line(case, tmp_path, capsys, ending, limit) -> None:
    """NumPy hides what the system said; a full disk under a map in memory was a bus error."""
    command, _ = case
    out = tmp_path / f'out{ending}'
    assert limited(lambda: embed.main([*command, '--out', str(out)]), limit) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert 'File too large' in said and f'{out.name}' in said and not out.exists()


def test_nothing_but_torn_images(case, tmp_path, capsys) -> None:
    command, _ = case
    for path in (tmp_path / 'images').rglob('*.*'):
        path.write_bytes(b'')
    assert embed.main([*command, '--out', str(tmp_path / 'x.npy'), '--on-error', 'skip']) == 1
    assert 'none of its 3 images can be read' in capsys.readouterr().err


def test_parts_of_other_weights_at_the_same_path_are_not_used(
    case, tmp_path: Path, monkeypatch
) -> None:
    """Content decides, not a time stamp, which copying keeps and clocks that go back repeat."""
    command, _ = case
    command = [*command, '--image-level', '--out', str(tmp_path / 'out.npy')]
    weights, read, seen = tmp_path / 'vit.pth', embed.read_image, []

    def stops(path: Path, size: tuple[int, int]) -> torch.Tensor:
        seen.append(path.name)
        if path.name == 'b.png' and len(seen) == 3:
            raise OSError('cable pulled')
        return read(path, size)

    monkeypatch.setattr(embed, 'read_image', stops)
    assert embed.main(command) == 1
    stamp, state = weights.stat(), torch.load(weights)
    state['state_dict'] = {name: 2 * value for name, value in state['state_dict'].items()}
    torch.save(state, weights)
    weights.with_name('vit.pth.sha256').unlink(missing_ok=True)
    os.utime(weights, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert embed.main(command) == 0
    assert seen[3:] == ['a.jpg', 'c.jpg', 'b.png']


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(out='x.csv'), "x.csv: ends in '.csv'"),
        (dict(checkpoint='absent.pth'), 'absent.pth: no such checkpoint'),
        (dict(folder='absent'), 'absent: no such folder'),
        (dict(size='30'), 'no multiples of the patch, 16'),
    ],
)
def test_mistakes_are_one_line(case, tmp_path: Path, capsys, change, message) -> None:
    command, _ = case
    command[0] = change.get('checkpoint', command[0])
    command[1] = change.get('folder', command[1])
    command[3] = change.get('size', command[3])
    assert embed.main([*command, '--out', str(tmp_path / change.get('out', 'x.npy'))]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


def test_images_are_those_of_pretraining(tmp_path: Path) -> None:
    """EXIF turns them, and 16 bits are scaled: Pillow alone clips such a file to white."""
    grey = np.full((8, 12), 40 * 257, np.uint16)
    grey[:, :6] = 200 * 257
    Image.fromarray(grey).save(tmp_path / 'deep.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (12, 8)).save(tmp_path / 'turned.jpg', exif=exif)
    deep = np.asarray(open_image(tmp_path / 'deep.png'))
    assert deep[0, 0].tolist() == [200] * 3 and deep[0, -1].tolist() == [40] * 3
    assert open_image(tmp_path / 'turned.jpg').size == (8, 12)
