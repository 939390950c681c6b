"""Each step that the last OpenMMLab releases need on today's torch and transformers.

OpenMMLab's last releases (mmengine 0.10.7, mmpretrain 1.2.0) are older than the libraries that
they meet here. Every gap that this package has to bridge is one function below, listed in
:data:`STEPS` with its reason and with the condition under which it can go. :func:`apply` runs them
all; it is idempotent, costs nothing the second time, and must run before ``mmpretrain.models`` is
imported for the first time (the launchers and ``tests/conftest.py`` do so).

Nothing here ever answers a refused checkpoint with ``weights_only=False``.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from s3pt_mm import VERSION_WINDOWS
from s3pt_mm.common.reading import plain_history_buffers, trusted_globals
from s3pt_mm.hosts.safe_files import read_files_safely


@dataclass(frozen=True)
class Step:
    """One bridge between an old host and a new library.

    Attributes:
        name: short name, printed by ``python -m s3pt_mm.hosts.compat``.
        reason: what fails without it, with the versions in which that was seen.
        until: the condition under which the step can be deleted.
        run: the step itself; calling it twice must do no harm.
    """

    name: str
    reason: str
    until: str
    run: Callable[[], None]


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Make ``import module`` raise ImportError inside the block, as if it were not installed."""
    before = {
        name: sys.modules[name]
        for name in list(sys.modules)
        if name == module or name.startswith(module + '.')
    }
    for name in before:
        del sys.modules[name]
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        sys.modules.update(before)


def skip_transformers_optimizers() -> None:
    """Import ``mmengine.optim`` without letting it import transformers."""
    if 'mmengine.optim' in sys.modules:
        return
    with _hidden('transformers'):
        importlib.import_module('mmengine.optim')


def skip_multimodal_models() -> None:
    """Let mmpretrain register placeholders for the models that need an old transformers."""
    try:
        major = int(importlib.metadata.version('transformers').split('.')[0])
    except importlib.metadata.PackageNotFoundError:
        return
    if major < 5:
        return
    dependency = importlib.import_module('mmpretrain.utils.dependency')
    dependency.WITH_MULTIMODAL = False


def use_huge_pages() -> None:
    """Ask torch's CPU allocator for 2 MB pages, before its first allocation."""
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')


@dataclass
class _Without(importlib.abc.MetaPathFinder):
    """Imports one module as if a package were not installed, unless that is loaded already.

    Attributes:
        module: the module that asks for the package, and does without where it is absent.
        package: the package.
        broken_only: hide it only if it cannot be loaded.
    """

    module: str
    package: str
    broken_only: bool = False

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The ordinary spec of that one module, executed with the package hidden."""
        if name != self.module or self.package in sys.modules:
            return None
        if self.broken_only:
            try:
                importlib.import_module(self.package)
                return None
            except (ImportError, OSError):
                pass
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module: object) -> None:
                with _hidden(self.package):
                    execute(module)

            spec.loader.exec_module = exec_module
        return spec


def _import_without(finder: _Without) -> None:
    if finder not in sys.meta_path:
        sys.meta_path.insert(0, finder)


def leave_mmdet_unloaded() -> None:
    """Import mmpretrain's models without all of mmdet behind one optional layer."""
    _import_without(_Without('mmpretrain.models.utils.res_layer_extra_norm', 'mmdet'))


def do_without_broken_open3d() -> None:
    """Import mmdet3d's visualiser where open3d is installed and cannot be loaded."""
    _import_without(_Without('mmdet3d.visualization.local_visualizer', 'open3d', broken_only=True))


class _StandInExtension(importlib.abc.MetaPathFinder):
    """Finds ``mmcv._ext`` where there is none; last in line, so that a compiled one wins."""

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """That one module, from mmcv_ext.py."""
        if name != 'mmcv._ext':
            return None
        return importlib.util.spec_from_file_location(name, Path(__file__).with_name('mmcv_ext.py'))


def stand_in_for_mmcv_operators() -> None:
    """Let ``mmcv.ops`` import under mmcv-lite; a compiled mmcv is used as it is."""
    if not any(isinstance(finder, _StandInExtension) for finder in sys.meta_path):
        sys.meta_path.append(_StandInExtension())


def trust_openmmlab_checkpoints() -> None:
    """Let plain ``torch.load(weights_only=True)`` read OpenMMLab's own checkpoints too."""
    import torch

    torch.serialization.add_safe_globals(trusted_globals())


STEPS: tuple[Step, ...] = (
    Step(
        'use_huge_pages',
        'Linux hands out memory in pages of 4 KB and clears each: on a virtual machine 67 MB for '
        'one gradient of 65,536 prototypes took 41 ms, with huge pages 9 ms (torch 2.14 has them '
        'behind THP_MEM_ALLOC_ENABLE; set it to 0 to do without)',
        "torch's CPU allocator asks for huge pages by itself",
        use_huge_pages,
    ),
    Step(
        'stand_in_for_mmcv_operators',
        'mmseg 1.2.2, mmdet 3.2.0 and mmdet3d 1.4.0 import mmcv.ops, whose C++ takes ten minutes '
        'to compile on a torch newer than the prebuilt wheels (2.1); none of our models calls it',
        'mmcv publishes wheels for current torch, or its ops import without the extension',
        stand_in_for_mmcv_operators,
    ),
    Step(
        'skip_transformers_optimizers',
        'mmengine 0.10.7 imports transformers to register its Adafactor: a second or more at '
        'every start, and with '
        'transformers 4 a KeyError, because torch >= 2.5 has an Adafactor that is registered '
        'already',
        "mmengine registers transformers' optimisers lazily or under a name of their own",
        skip_transformers_optimizers,
    ),
    Step(
        'skip_multimodal_models',
        'mmpretrain 1.2.0 sees any transformers >= 4.28 as usable, but its BLIP imports names '
        'that transformers 5 '
        'removed, so `import mmpretrain.models` fails (TypeError: NoneType takes no arguments)',
        'mmpretrain supports transformers 5 or asks for transformers < 5',
        skip_multimodal_models,
    ),
    Step(
        'leave_mmdet_unloaded',
        'mmpretrain 1.2.0 imports mmdet for one optional layer (ResLayerExtraNorm), and mmdet 3.2 '
        'its tracking, scikit-learn, pandas, transformers and with it torch._dynamo: 0.31 GB and '
        'seconds in every process of a pre-training run that uses none of it',
        'mmpretrain or mmdet import their extras lazily',
        leave_mmdet_unloaded,
    ),
    Step(
        'do_without_broken_open3d',
        'mmdet3d 1.4.0 asks for open3d and does without where importing it is an ImportError, but '
        'not where it is the OSError that open3d raises on a machine without libusb-1.0 or libGL',
        'open3d loads without them, or mmdet3d names it as an extra',
        do_without_broken_open3d,
    ),
    Step(
        'plain_history_buffers',
        'mmengine 0.10.7 pickles the methods of HistoryBuffer as `getattr(HistoryBuffer, name)`; '
        'to allow getattr in a '
        'checkpoint would be to allow any code',
        'mmengine leaves statistics_methods out of HistoryBuffer.__getstate__',
        plain_history_buffers,
    ),
    Step(
        'trust_openmmlab_checkpoints',
        'torch >= 2.6 loads with weights_only=True; mmengine 0.10.7 stores HistoryBuffer and '
        'numpy values in every '
        'checkpoint, so resuming fails (UnpicklingError: Unsupported global)',
        'mmengine writes checkpoints of plain containers and tensors, or registers these classes '
        'itself',
        trust_openmmlab_checkpoints,
    ),
    Step(
        'read_files_safely',
        'mmengine 0.10.7 unpickles info files, makes any object that a YAML config names, loads '
        'weights by address with weights_only=False into a file named by the last part of the '
        'address, and runs the text of a config that a checkpoint holds when it resumes from it',
        'never: the doors stay, and somebody else has to have closed them',
        read_files_safely,
    ),
)

_applied: list[str] = []


def apply() -> tuple[str, ...]:
    """Run every step of :data:`STEPS` once.

    Returns:
        The names of the steps that are in force.
    """
    for step in STEPS:
        if step.name not in _applied:
            step.run()
            _applied.append(step.name)
    return tuple(_applied)


def check_versions(windows: dict[str, tuple[str, str]] | None = None) -> None:
    """Compare the installed hosts with the supported windows.

    Args:
        windows: ``package: (first accepted, first refused)``. Defaults to
            :data:`s3pt_mm.VERSION_WINDOWS`.

    Raises:
        ImportError: a host is of another version. The message names every such package, its
            version, the accepted range and the command that repairs it. A package that is absent
            is no error: pre-training needs neither mmsegmentation nor mmdet3d.
    """
    from packaging.version import Version

    wrong = []
    for package, (first, stop) in (VERSION_WINDOWS if windows is None else windows).items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not Version(first) <= Version(Version(found).base_version) < Version(stop):
            wrong.append(
                f'{package} {found} is installed, s3pt_mm needs >={first},<{stop}: '
                f'pip install "{package}>={first},<{stop}"'
            )
    if wrong:
        raise ImportError('\n'.join(wrong))


if __name__ == '__main__':
    apply()
    for _step in STEPS:
        print(f'{_step.name}\n  why:   {_step.reason}\n  until: {_step.until}')
