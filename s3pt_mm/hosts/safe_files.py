"""mmengine's own readers of files, replaced by ones that run nothing of what they read.

``mmengine.load`` and its checkpoint loader are what all hosts use: mmdet3d's data sets and
``NuScenesMetric``, YAML configs, ``load_from``, ``init_cfg``, ``--resume``, inferencers.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.info_tables import read_table
from s3pt_mm.common.pickles import ForeignGlobalError, load_plain_pickle
from s3pt_mm.common.reading import read_checkpoint


def read_files_safely() -> None:
    """Put this package's readers in place of mmengine's; safe to call again."""
    _replace_file_handlers()
    _replace_checkpoint_reader()


def _replace_file_handlers() -> None:
    import yaml
    from mmengine.fileio import handlers

    @handlers.register_handler(['pickle', 'pkl'])
    class PlainPickleHandler(handlers.PickleHandler):
        """Pickles of plain data and nothing else."""

        def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
            """Read; a foreign class or function is refused by name."""
            try:
                return load_plain_pickle(file, **kwargs)
            except ForeignGlobalError as error:
                raise DataError(
                    getattr(file, 'name', 'a pickle'),
                    f'the pickle asks for the foreign global {error}',
                    'It would run code; export its content as JSON, YAML or Parquet',
                ) from None

    @handlers.register_handler(['yaml', 'yml'])
    class SafeYamlHandler(handlers.YamlHandler):
        """YAML of plain data: tags such as ``!!python/object`` are refused."""

        def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
            """Read; a foreign tag is refused by name."""
            try:
                return yaml.load(file, Loader=getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
            except yaml.constructor.ConstructorError as error:
                raise DataError(
                    getattr(file, 'name', 'YAML'),
                    str(error.problem) + str(error.problem_mark or ''),
                    'Such a tag would run code; write plain values',
                ) from None

    @handlers.register_handler('parquet')
    class InfoTableHandler(handlers.PickleHandler):
        """Info files as Parquet tables, so that the hosts' data sets and metrics read them."""

        def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
            """``dict(metainfo, data_list)``."""
            return read_table(file)


def _replace_checkpoint_reader() -> None:
    import torch
    from mmengine.runner import checkpoint as host

    def load(file: Any, map_location: Any = None, **_: Any) -> Any:
        return read_checkpoint(file, map_location)

    def load_url(address: str, map_location: Any = None, **_: Any) -> Any:
        return read_checkpoint(address, map_location)

    # All schemes (local, s3, torchvision://, ...) end in one of these two names of that module.
    module = ModuleType('torch')
    vars(module).update(vars(torch), load=load)
    host.torch, host.load_url = module, load_url
