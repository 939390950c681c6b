"""No file executes code, whatever its route in: every door, every kind of malicious file."""

from __future__ import annotations

import http.server
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import mmengine
import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_with_prefix

from s3pt_mm.common.downloads import cached_file
from s3pt_mm.common.errors import ConfigError, DataError
from s3pt_mm.common.models import load_strictly, read_state_dict
from s3pt_mm.common.pickles import load_plain_pickle
from s3pt_mm.common.reading import UnsafeCheckpointError, read_checkpoint
from s3pt_mm.data.datasets.info_file import load_info_file
from s3pt_mm.data.nuimages_masks import create_nuimages
from s3pt_mm.hosts.checks import claim_work_folder
from s3pt_mm.resume.checkpoint_files import find_checkpoints
from s3pt_mm.weights.any_vit import told_heads
from s3pt_mm.weights.convert import convert_file
from s3pt_mm.weights.files import write_weights
from tests.test_security.attacks import (
    REFUSED,
    rewritten_flags,
    touch,
    write_checkpoint,
    write_pickle,
)
from tests.test_security.doors import doors, doors_of

BY_DESIGN = 'a Python config is a program: docs/reliability.md'
OWN = 'bytes that the same process made'
#: Every door of the code -> the test that tries it, or why it is none.
COVERED = {
    ('s3pt_mm/common/reading.py', 'torch.load'): 'test_malicious_checkpoints_at_every_door',
    ('s3pt_mm/common/reading.py', 'load_file'): 'test_safetensors_are_data',
    ('s3pt_mm/weights/any_vit.py', 'safe_open'): 'test_safetensors_are_data',
    ('s3pt_mm/common/downloads.py', 'download_url_to_file'): 'test_weights_by_address',
    ('s3pt_mm/common/pickles.py', 'Unpickler'): 'test_malicious_info_files_at_every_door',
    ('s3pt_mm/common/info_tables.py', 'ParquetFile'): 'test_a_table_that_is_none',
    (
        's3pt_mm/resume/checkpoint_files.py',
        'torch.load',
    ): 'test_the_newest_is_sought_safely',
    ('s3pt_mm/resume/data_identity.py', 'pickle.loads'): OWN,
    ('s3pt_mm/data/datasets/info_file.py', 'read_table'): 'test_a_table_that_is_none',
    ('s3pt_mm/hosts/safe_files.py', 'read_table'): 'test_a_table_that_is_none',
    ('s3pt_mm/data/formats/tables.py', 'ParquetFile'): 'test_tables_of_logs_that_are_none',
    ('s3pt_mm/data/formats/tables.py', 'read_table'): 'test_tables_of_logs_that_are_none',
    ('s3pt_mm/data/formats/argoverse2.py', 'read_table'): 'test_tables_of_logs_that_are_none',
    ('s3pt_mm/data/formats/waymo.py', 'read_table'): 'test_tables_of_logs_that_are_none',
    ('s3pt_mm/hosts/safe_files.py', 'yaml.load'): 'test_yaml_tags_are_refused',
    ('s3pt_mm/data/formats/frames.py', 'Unpickler'): 'test_pickled_frames_only_record',
    ('s3pt_mm/data/formats/points.py', 'np.load'): 'test_arrays_of_objects_are_refused',
    ('s3pt_mm/data/transforms/depth_map.py', 'np.load'): 'test_arrays_of_objects_are_refused',
    ('s3pt_mm/hosts/launch.py', 'Config.fromfile'): BY_DESIGN,
    ('s3pt_mm/cli/sweep.py', 'Config.fromfile'): BY_DESIGN,
}

CHECKPOINT_DOORS: dict[str, Callable[[Path], object]] = {
    'reader': read_checkpoint,
    'load_from, --resume, test': lambda path: CheckpointLoader.load_checkpoint(str(path)),
    "mmengine's init_cfg": lambda path: _load_checkpoint_with_prefix('w', str(path)),
    'load_checkpoint': lambda path: load_checkpoint(torch.nn.Linear(1, 1), str(path)),
    'init_cfg': lambda path: load_strictly(torch.nn.Linear(1, 1), str(path)),
    'convert': lambda path: convert_file(path, path.with_name('out.pth')),
    'open file': lambda path: read_checkpoint(io.BytesIO(path.read_bytes())),
}


def test_no_door_without_a_test() -> None:
    """A new loader anywhere in the code needs a line above, and a test that tries it."""
    found = doors('s3pt_mm', 'tools')
    developers = {door for door in found if door[0].startswith('tools/dev/')}
    allowed = {'Config.fromfile', 'Config.fromstring', 'np.load'}  # NumPy refuses objects unasked
    assert {loader for _, loader in developers} <= allowed
    assert found - developers == set(COVERED)
    assert all(reason in (BY_DESIGN, OWN) or reason in globals() for reason in COVERED.values())


def test_the_search_finds_new_doors() -> None:
    """Calls, base classes and bare names are found; methods named eval are no doors."""
    text = 'class A(pickle._Unpickler): pass\nx.torch.load(y)\nnp.load(z)\nm.eval()\neval(q)\n'
    assert sorted(doors_of(text)) == ['eval', 'np.load', 'torch.load']
    assert list(doors_of('class A(pickle.Unpickler): pass')) == ['Unpickler']


@pytest.mark.parametrize('door', CHECKPOINT_DOORS)
@pytest.mark.parametrize('kind', REFUSED)
def test_malicious_checkpoints_at_every_door(kind: str, door: str, tmp_path: Path) -> None:
    """Refused by name, without torch's advice; nothing ran."""
    victim, path = tmp_path / 'victim', tmp_path / 'evil.pth'
    write_checkpoint(kind, path, victim)
    with pytest.raises(DataError) as error:
        CHECKPOINT_DOORS[door](path)
    assert not victim.exists()
    assert 'weights_only' not in str(error.value)
    if kind != 'bare pickle':
        assert isinstance(error.value, UnsafeCheckpointError), error.value
        assert 'Nothing of it was run' in str(error.value)


@pytest.mark.parametrize('door', CHECKPOINT_DOORS)
def test_a_flipped_bit_at_every_door(door: str, tmp_path: Path) -> None:
    """0.219 became 7.4e37 in the file, which has no checksum beside it: not silently."""
    path = tmp_path / 'w.pth'
    torch.save({'state_dict': {'weight': torch.full((1, 1), 0.219), 'bias': torch.ones(1)}}, path)
    whole, number = bytearray(path.read_bytes()), torch.tensor(0.219).numpy().tobytes()
    whole[whole.index(number) + 3] ^= 64
    path.write_bytes(whole)
    assert float(torch.load(path, weights_only=True)['state_dict']['weight']) > 1e37
    with pytest.raises(DataError, match='altered'):
        CHECKPOINT_DOORS[door](path)


def test_the_attack_is_one(tmp_path: Path) -> None:
    """Read carelessly, the same pickle does run."""
    pickle.loads(pickle.dumps(touch(tmp_path / 'victim')))
    assert (tmp_path / 'victim').exists()


def test_flags_of_a_dtype_are_not_the_files_to_set(tmp_path: Path) -> None:
    """The number stays a number, in a checkpoint as in an info file; NumPy would dereference it."""
    array = load_plain_pickle(io.BytesIO(rewritten_flags()))
    assert array.dtype == np.uint64 and array.tolist() == [0x4141414141414141]
    write_checkpoint('dtype flags', tmp_path / 'x.pth', tmp_path / 'victim')
    array = read_checkpoint(tmp_path / 'x.pth')['meta']
    assert array.dtype == np.uint64 and array.tolist() == [0x4141414141414141]
    assert b's3pt_mm' not in pickle.dumps(array)  # goes on as a plain array


def test_resuming_runs_no_config_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--resume``: mmengine would give ``meta['config']`` to ``Config.fromstring``."""
    from tests.test_reliability.tiny_run import tiny_config, train

    assert train(tiny_config(tmp_path, **{'train_cfg.max_epochs': 1}))
    path, victim = tmp_path / 'epoch_1.pth', tmp_path / 'victim'
    content = torch.load(path, weights_only=True)
    attack = f'open({str(victim)!r}, "w")\n'
    content['meta'].update(config=attack, cfg=attack)
    content['message_hub']['runtime_info']['cfg'] = attack
    torch.save(content, path)
    path.with_name('epoch_1.pth.sha256').unlink()
    monkeypatch.setattr(Config, 'fromstring', lambda *args, **kwargs: pytest.fail('ran a config'))
    assert train(tiny_config(tmp_path, resume=True))
    assert not victim.exists() and (tmp_path / 'epoch_3.pth').exists()


@pytest.mark.parametrize('kind', REFUSED)
def test_the_newest_is_sought_safely(kind: str, tmp_path: Path) -> None:
    """``--resume`` alone looks into files of the work folder that have no note."""
    write_checkpoint(kind, tmp_path / 'epoch_3.pth', tmp_path / 'victim')
    assert [found.path.name for found in find_checkpoints(tmp_path)] == ['epoch_3.pth']
    assert not (tmp_path / 'victim').exists()


def test_inferencers_find_no_config_text(tmp_path: Path) -> None:
    """mmengine's inferencers take the config from the checkpoint where none is given."""
    hub = dict(runtime_info=dict(cfg='1/0', epoch=3), log_scalars={}, resumed_keys={})
    torch.save(dict(meta=dict(cfg='1/0', epoch=1), message_hub=hub), tmp_path / 'x.pth')
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'))
    assert content['meta'] == dict(epoch=1)
    assert content['message_hub']['runtime_info'] == dict(epoch=3)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which it is served."""
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield folder, f'http://127.0.0.1:{serving.server_port}'
        serving.shutdown()


def test_weights_by_address(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read safely, kept under the whole address: the same file name of two places is two files."""
    folder, address = server
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    for value, place in enumerate('ab'):
        (folder / place).mkdir()
        torch.save({'state_dict': {'w': torch.tensor(value)}}, folder / place / 'checkpoint.pth')
    for door in (read_checkpoint, CheckpointLoader.load_checkpoint):
        got = [door(f'{address}/{place}/checkpoint.pth')['state_dict']['w'] for place in 'ab']
        assert [int(w) for w in got] == [0, 1]
    write_checkpoint('shell command', folder / 'evil.pth', tmp_path / 'victim')
    for door in (read_checkpoint, CheckpointLoader.load_checkpoint, read_state_dict):
        with pytest.raises(UnsafeCheckpointError, match=r'evil\.pth: refused.*system'):
            door(f'{address}/evil.pth')
    assert not (tmp_path / 'victim').exists()
    with pytest.raises(DataError, match=r'absent\.pth: the download failed .*404'):
        read_checkpoint(f'{address}/absent.pth')
    assert not cached_file(f'{address}/absent.pth').exists()


def test_a_record_in_a_work_folder_is_data(tmp_path: Path) -> None:
    """mmengine's reader of configs follows ``_base_`` to Python, from JSON too."""
    victim = tmp_path / 'victim'
    (tmp_path / 'evil.py').write_text(f'open({str(victim)!r}, "w")\n')
    cfg = Config(dict(work_dir=str(tmp_path), model=dict(type='S3PT')))
    for text in ('{"_base_": "evil.py"}', '[]', '{"config": ', '', '[' * 100_000):
        (tmp_path / 's3pt_run.json').write_text(text)
        with pytest.raises(ConfigError, match=r's3pt_run\.json is damaged'):
            claim_work_folder(cfg, 'configs/a.py', training=True)
    (tmp_path / 's3pt_run.json').write_text('{"_base_": "evil.py", "config": "a"}')
    claim_work_folder(cfg, 'configs/a.py', training=True)
    assert not victim.exists()


@pytest.mark.parametrize('part', ['a number', 'a name', 'the hash'])
def test_a_flipped_bit_in_our_safetensors(part: str, tmp_path: Path) -> None:
    """The format has no checksum; ours holds one."""
    path = tmp_path / 'e.backbone.safetensors'
    write_weights({'weight': torch.full((3,), 0.219)}, path, dict(architecture='{}'))
    assert read_checkpoint(path)['weight'][0] == torch.tensor(0.219)
    whole = bytearray(path.read_bytes())
    place = {
        'a number': len(whole) - 1,
        'a name': whole.index(b'"weight"') + 3,
        'the hash': whole.index(b'"sha256"') + 20,
    }[part]
    whole[place] ^= 1
    path.write_bytes(whole)
    for door in (read_checkpoint, CheckpointLoader.load_checkpoint, read_state_dict):
        with pytest.raises(DataError, match=r'safetensors: altered: its content hashes to'):
            door(str(path))
    tensors = {'weight': torch.ones(3)}  # of another maker
    safetensors.torch.save_file(tensors, path)
    assert torch.equal(read_checkpoint(path)['weight'], tensors['weight'])


def test_safetensors_are_data(tmp_path: Path) -> None:
    """The format has no code; a torn or disguised file is named."""
    write_checkpoint('shell command', tmp_path / 'x.safetensors', tmp_path / 'victim')
    with pytest.raises(DataError, match='not a whole safetensors file'):
        read_checkpoint(tmp_path / 'x.safetensors')
    assert told_heads(tmp_path / 'x.safetensors') is None
    assert not (tmp_path / 'victim').exists()


@pytest.mark.parametrize('door', [load_info_file, lambda path: mmengine.load(str(path))])
@pytest.mark.parametrize(
    'kind', ['shell command', 'object pointers', 'call of ndarray', 'change of the reader']
)
def test_malicious_info_files_at_every_door(kind: str, door: Callable, tmp_path: Path) -> None:
    """Ours, and mmengine's, which mmdet3d's data sets and ``NuScenesMetric`` use."""
    victim, path = tmp_path / 'victim', tmp_path / 'infos.pkl'
    write_pickle(kind, path, victim)
    with pytest.raises((DataError, pickle.UnpicklingError)):
        door(path)
    assert not victim.exists()


def test_the_hosts_metric_reads_info_files_safely(tmp_path: Path) -> None:
    """mmdet3d's ``NuScenesMetric`` reads ``ann_file`` when it computes."""
    from mmdet3d.evaluation.metrics.nuscenes_metric import NuScenesMetric

    write_pickle('shell command', tmp_path / 'infos.pkl', tmp_path / 'victim')
    metric = NuScenesMetric(data_root=str(tmp_path), ann_file=str(tmp_path / 'infos.pkl'))
    metric.dataset_meta = dict(classes=['car'], version='v1.0-mini')
    with pytest.raises(DataError, match='foreign global'):
        metric.compute_metrics([])
    assert not (tmp_path / 'victim').exists()


def test_a_table_that_is_none(tmp_path: Path) -> None:
    """A pickle that calls itself Parquet."""
    path = tmp_path / 'infos.parquet'
    path.write_bytes(pickle.dumps(touch(tmp_path / 'victim')))
    with pytest.raises(DataError, match='not a readable Parquet file'):
        load_info_file(path)
    with pytest.raises(Exception, match='Parquet'):
        mmengine.load(str(path))
    assert not (tmp_path / 'victim').exists()


@pytest.mark.parametrize('name', ['x.feather', 'x.parquet'])
def test_tables_of_logs_that_are_none(name: str, tmp_path: Path) -> None:
    """Argoverse's and Waymo's tables, read by pyarrow (which made objects before 14.0.1)."""
    from s3pt_mm.data.formats.tables import LazyTable, read_table

    path = tmp_path / name
    path.write_bytes(pickle.dumps(touch(tmp_path / 'victim')))
    for door in (read_table, partial(LazyTable, keys=['a'])):
        with pytest.raises(DataError, match='not a readable table'):
            door(path)
    assert not (tmp_path / 'victim').exists()


def test_yaml_tags_are_refused(tmp_path: Path) -> None:
    """YAML configs, through mmengine; plain ones are read."""
    path = tmp_path / 'config.yaml'
    path.write_text(f'model: !!python/object/apply:os.system ["touch {tmp_path}/victim"]\n')
    for door in (Config.fromfile, mmengine.load):
        with pytest.raises(DataError, match=r'python/object/apply:os\.system'):
            door(str(path))
    assert not (tmp_path / 'victim').exists()
    path.write_text('model: {type: A, sizes: [1, 2.5]}\n')
    assert Config.fromfile(str(path)).model.sizes == [1, 2.5]


def test_pickled_frames_only_record(tmp_path: Path) -> None:
    """PandaSet's sweeps: pandas tables in pickles, read by a recorder."""
    from s3pt_mm.data.formats.frames import read_frame

    for content in (pickle.dumps(touch(tmp_path / 'victim')), rewritten_flags()):
        with pytest.raises(DataError, match='not a pickled table'):
            read_frame(io.BytesIO(content), tmp_path / '00.pkl')
    assert not (tmp_path / 'victim').exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    """A ``.npy`` of objects is a pickle."""
    from s3pt_mm.data.formats.points import read_points
    from s3pt_mm.data.transforms.depth_map import read_depth_map

    path = tmp_path / 'sweep.npy'
    np.save(path, np.array([touch(tmp_path / 'victim')], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match='not a readable point cloud'):
        read_points(path)
    with pytest.raises(DataError, match='not a readable depth map'):
        read_depth_map(str(path))
    assert not (tmp_path / 'victim').exists()


@pytest.mark.parametrize('name', ['/tmp/outside.jpg', '../../outside.jpg', 'samples/../../x.jpg'])
def test_file_names_stay_inside(name: str, nuimages_root: Path, tmp_path: Path) -> None:
    """nuImages' tables may not say where masks are written."""
    import json
    import shutil

    root = shutil.copytree(nuimages_root, tmp_path / 'copy')
    table = root / 'v1.0-train' / 'sample_data.json'
    rows = json.loads(table.read_text())
    rows[0].update(filename=name, is_key_frame=True)
    table.write_text(json.dumps(rows))
    with pytest.raises(DataError, match='which is not inside'):
        create_nuimages(root, out_dir=tmp_path / 'out', progress=False)
    assert not list(tmp_path.rglob('outside.*'))


def test_protocol_2_info_files_load(tmp_path: Path) -> None:
    """mmdetection3d writes protocol 2, in which a NumPy scalar calls ``_codecs.encode``."""
    infos = {
        'metainfo': {'info_version': '1.1', 'categories': {'Car': 0}},
        'data_list': [{'sample_idx': np.int64(3), 'area': np.float32(2.5), 'T': np.eye(4)}],
    }
    (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(infos, protocol=2))
    assert b'_codecs' in (tmp_path / 'infos.pkl').read_bytes()
    sample = load_info_file(tmp_path / 'infos.pkl')['data_list'][0]
    assert sample['sample_idx'] == 3 and sample['area'] == 2.5
    np.testing.assert_array_equal(sample['T'], np.eye(4))


@pytest.mark.parametrize('name', ['/tmp/outside.jpg', '../../outside.jpg'])
def test_prepared_images_stay_inside(name: str, tmp_path: Path) -> None:
    """``prepare_images`` writes under the names that an info file brings."""
    from s3pt_mm.data.datasets.info_file import write_info_file
    from s3pt_mm.data.prepared_images import PreparedInfos

    info = dict(token='a', images=dict(front=dict(img_path=name)))
    write_info_file(tmp_path / 'infos.parquet', dict(info_version='1.1'), [info])
    with pytest.raises(DataError, match=r'infos\.parquet.*which is not inside'):
        PreparedInfos(tmp_path / 'infos.parquet', tmp_path, tmp_path / 'out', 2)


@pytest.mark.parametrize('name', ['../../outside/0.png', 'a/../../outside/0.png'])
@pytest.mark.parametrize('shards', [[], ['--shards', '4']])
def test_depth_maps_stay_inside(name: str, shards: list[str], tmp_path: Path) -> None:
    """Folders of depth maps are linked into the new data, at the place that an info file says."""
    from s3pt_mm.cli.prepare_images import main
    from s3pt_mm.data.datasets.info_file import write_info_file

    info = dict(token='a', images=dict(front=dict(img_path='a.jpg', depth_map=name)))
    root = tmp_path / 'deep' / 'root'
    write_info_file(root / 'infos.parquet', dict(info_version='1.1'), [info])
    out = ['--out', str(tmp_path / 'deep' / 'out'), '--workers', '0']
    assert main([str(root / 'infos.parquet'), *out, *shards]) == 1
    assert not list(tmp_path.rglob('outside*'))


def test_texts_too_deep_and_arrays_too_large_are_refused(nuimages_root: Path) -> None:
    """A few bytes that ask for more than there is: named, as any garbled file is."""
    from s3pt_mm.data.class_lists import class_set
    from s3pt_mm.data.transforms.depth_map import read_depth_map

    for name in ('x.json', 'x.yaml'):
        path = nuimages_root / name
        path.write_text('[' * 5000)
        with pytest.raises(DataError, match=rf'{name}: is no class list'):
            class_set(path)
    with open(nuimages_root / 'x.npy', 'wb') as file:
        header = dict(descr='<f4', fortran_order=False, shape=(10**15,))
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(DataError, match=r'x\.npy: not a readable depth map'):
        read_depth_map(str(nuimages_root / 'x.npy'))
    (nuimages_root / 'v1.0-train' / 'category.json').write_text('[' * 100_000)
    with pytest.raises(DataError, match=r'category\.json: is no JSON'):
        create_nuimages(nuimages_root, progress=False)
