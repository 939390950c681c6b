"""Every compatibility step is needed, works, and may run twice."""

import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer

import s3pt_mm
from s3pt_mm.hosts import compat


def test_package_import_is_light() -> None:
    """`import s3pt_mm` loads neither torch nor any host."""
    code = (
        'import sys, s3pt_mm; heavy = {"torch", "numpy", "mmengine", "mmcv", "mmpretrain", '
        '"mmseg", "mmdet3d"}; '
        'sys.exit(", ".join(sorted(heavy & set(sys.modules))) or None)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_apply_is_idempotent_and_complete() -> None:
    """The second call changes nothing and both name every step."""
    first = compat.apply()
    allowed = len(torch.serialization.get_safe_globals())
    assert compat.apply() == first == tuple(step.name for step in compat.STEPS)
    assert len(torch.serialization.get_safe_globals()) == allowed
    for step in compat.STEPS:
        assert step.reason and step.until


def test_mmpretrain_models_import_beside_any_transformers() -> None:
    """The step keeps mmpretrain's own registry usable: its ViT builds, BLIP says what it lacks."""
    pytest.importorskip('transformers')
    compat.apply()
    import mmpretrain.models  # noqa: F401
    from mmpretrain.registry import MODELS

    assert MODELS.get('VisionTransformer') is not None
    import importlib.metadata

    if int(importlib.metadata.version('transformers').split('.')[0]) >= 5:
        with pytest.raises(ImportError, match='multi-modal'):
            MODELS.build(dict(type='BlipCaption'))


@pytest.mark.parametrize('first', ['', 'import mmdet.registry; '])
def test_pretraining_leaves_mmdet_alone_and_mmdet_works_afterwards(first: str) -> None:
    """mmpretrain's models load without mmdet's, and with them where somebody has them already."""
    pytest.importorskip('mmdet')
    code = (
        f'{first}import sys; from s3pt_mm.hosts import compat; compat.apply(); compat.apply(); '
        'import mmpretrain.models; from mmpretrain.models.utils import res_layer_extra_norm as m; '
        'loaded = "mmdet.models" in sys.modules; extra = m.ResLayerExtraNorm is not None; '
        'import mmdet.models; print(loaded, extra)'
    )
    command = [sys.executable, '-W', 'ignore', '-c', code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = bool(first)
    assert done.stdout.split() == [str(wanted)] * 2


@pytest.mark.parametrize(
    ('package', 'found'),
    [
        ("raise OSError('libusb-1.0.so.0: cannot open shared object file')", 'nothing'),
        ('import no_such_library', 'nothing'),
        ('version = 3', 'package'),
        (None, 'nothing'),
    ],
    ids=['broken', 'incomplete', 'whole', 'absent'],
)
def test_a_package_that_cannot_be_loaded_counts_as_absent(
    package: str | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As mmdet3d's visualiser asks for open3d: it does without, if it is an ImportError."""
    if package is not None:
        (tmp_path / 'window_3d.py').write_text(package)
    (tmp_path / 'asks_for_it.py').write_text(
        'try:\n    import window_3d\n    found = "package"\n'
        'except ImportError:\n    found = "nothing"\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    finder = compat._Without('asks_for_it', 'window_3d', broken_only=True)
    monkeypatch.setattr(sys, 'meta_path', [finder, *sys.meta_path])
    try:
        assert importlib.import_module('asks_for_it').found == found
    finally:
        for name in ('asks_for_it', 'window_3d'):
            sys.modules.pop(name, None)


def test_the_step_for_open3d_names_who_asks_for_it() -> None:
    spec = importlib.util.find_spec('mmdet3d')
    if spec is None:
        pytest.skip('no mmdet3d')
    compat.apply()
    wanted = ('mmdet3d.visualization.local_visualizer', 'open3d', True)
    finders = [one for one in sys.meta_path if isinstance(one, compat._Without)]
    assert wanted in [(one.module, one.package, one.broken_only) for one in finders]
    assert (
        'import open3d'
        in (Path(spec.origin).parent / 'visualization' / 'local_visualizer.py').read_text()
    )


def test_transformers_is_hidden_only_inside() -> None:
    """Hiding a module leaves it importable, and the same object, afterwards."""
    import json
    import json.decoder

    with compat._hidden('json'):
        with pytest.raises(ImportError):
            import json  # noqa: F811
    import json as again

    assert sys.modules['json.decoder'] is json.decoder and again is sys.modules['json']


def test_resumable_contents_load_with_weights_only(tmp_path) -> None:
    """What mmengine and a numpy random state put into a checkpoint comes back unchanged."""
    compat.apply()
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    content = dict(
        message_hub=dict(log_scalars=dict(loss=buffer)),
        numpy_state=np.random.RandomState(3).get_state(),
        scalar=np.float64(0.25),
        integer=np.int64(7),
        half=np.array([1.5], dtype=np.float16),
        flag=np.bool_(True),
        palette=np.arange(6, dtype=np.uint8).reshape(2, 3),
    )
    path = tmp_path / 'resume.pth'
    torch.save(content, path)
    back = torch.load(path, weights_only=True)
    assert back['message_hub']['log_scalars']['loss'].data[0].tolist() == [1.0, 2.0]
    np.testing.assert_array_equal(back['numpy_state'][1], content['numpy_state'][1])
    assert back['scalar'] == 0.25 and back['integer'] == 7 and bool(back['flag'])
    np.testing.assert_array_equal(back['palette'], content['palette'])
    assert back['half'].dtype == np.float16


def test_history_buffer_of_an_unpatched_mmengine_loads(tmp_path) -> None:
    """A file that holds `getattr(HistoryBuffer, name)` loads; its functions are ignored, its
    numbers kept."""
    code = (
        'import sys, torch; from mmengine.logging.history_buffer import HistoryBuffer; '
        'torch.save(dict(loss=HistoryBuffer([1.0, 3.0], [1, 1])), sys.argv[1])'
    )
    path = tmp_path / 'stock.pth'
    subprocess.run([sys.executable, '-c', code, str(path)], check=True)
    assert b'getattr' in path.read_bytes()
    compat.apply()
    assert torch.load(path, weights_only=True)['loss'].mean() == 2.0


class _Reach:
    """Pickles as `getattr(HistoryBuffer, '__init__')`, the first step towards any code."""

    def __reduce__(self) -> tuple:
        return getattr, (HistoryBuffer, '__init__')


def test_getattr_is_not_opened(tmp_path) -> None:
    """The stand-in for getattr reaches nothing but the four statistics."""
    compat.apply()
    path = tmp_path / 'reach.pth'
    torch.save(dict(extra=_Reach()), path)
    with pytest.raises(pickle.UnpicklingError, match='Unsupported use of getattr'):
        torch.load(path, weights_only=True)


class _Foreign:
    """A class that no checkpoint may bring along."""


def test_other_classes_stay_refused(tmp_path) -> None:
    """The list of trusted classes does not open the door for others."""
    compat.apply()
    path = tmp_path / 'foreign.pth'
    torch.save(dict(state_dict={}, extra=_Foreign()), path)
    with pytest.raises(pickle.UnpicklingError, match='_Foreign'):
        torch.load(path, weights_only=True)


def test_version_windows_name_package_range_and_remedy() -> None:
    """The installed environment passes; a wrong window is reported with everything needed to
    repair it."""
    compat.check_versions()
    assert set(s3pt_mm.VERSION_WINDOWS) >= {
        'torch',
        'numpy',
        'mmengine',
        'mmcv',
        'mmpretrain',
        'mmdet3d',
    }
    with pytest.raises(
        ImportError, match=r'mmengine .* needs >=9,<10: pip install "mmengine>=9,<10"'
    ):
        compat.check_versions({'mmengine': ('9', '10'), 'numpy': ('1', '3')})
    compat.check_versions({'no-such-distribution': ('1', '2')})
