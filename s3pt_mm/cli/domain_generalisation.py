"""Test a trained segmentor on another data set over the shared classes.

s3pt-domains CONFIG CHECKPOINT --target CONFIG --mapping PAIR --out-dir DIR
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3pt_mm.hosts import compat

compat.apply()

from mmengine.config import Config  # noqa: E402

from s3pt_mm.common.errors import ConfigError, DataError, explain  # noqa: E402
from s3pt_mm.common.files import write_json  # noqa: E402
from s3pt_mm.data.class_mappings import MAPPINGS, load_mapping  # noqa: E402
from s3pt_mm.hosts import launch  # noqa: E402
from s3pt_mm.reports.tables import write_table  # noqa: E402


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('config', help='the config the model was trained with (the source)')
    parser.add_argument('checkpoint', help='the trained segmentor')
    parser.add_argument(
        '--target', required=True, help='config whose test_dataloader is the target'
    )
    parser.add_argument(
        '--mapping',
        required=True,
        help=f'{", ".join(sorted(MAPPINGS))}, or a file (docs/add_a_class_mapping.md)',
    )
    parser.add_argument('--out-dir', required=True)
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', help='KEY=VALUE for the source config'
    )
    parser.add_argument(
        '--target-options', nargs='+', action='extend', help='KEY=VALUE for the target config'
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say; prints the table."""
    source = _config(args.config, args.cfg_options)
    target = _config(args.target, args.target_options)
    report = evaluate_domains(source, args.checkpoint, target, args.mapping, Path(args.out_dir))
    print((Path(args.out_dir) / 'domain.md').read_text())
    return report


def _config(name: str, options: Sequence[str] | None) -> Config:
    """A config as ``s3pt-test`` reads it.

    Raises:
        ConfigError: no such file, an option that nothing reads, or no data to test on.
    """
    told = dict(config=name, cfg_options=options, work_dir=None, launcher='none', local_rank=0)
    arguments = argparse.Namespace(**told)
    cfg = launch.load_config(arguments)
    if cfg.get('test_dataloader') is None:
        raise ConfigError(f'{name}: no test_dataloader')
    launch.check_data(cfg, 'test_dataloader', name)
    launch.prepare_testing(cfg, arguments)
    return cfg


def evaluate_domains(
    source: Config, checkpoint: str, target: Config, mapping: str, out_dir: Path
) -> dict[str, Any]:
    """Test a model on its own data set and on another, both over the shared classes.

    The target's own test pipeline (its image scale) and the source model's sliding window are used
    (choice of this package).

    Args:
        source: Config the model was trained with.
        checkpoint: Its checkpoint.
        target: Config with the target's ``test_dataloader``.
        mapping: Name of a class mapping from source to target.
        out_dir: ``source.json``, ``target.json``, ``domain.{json,csv,md}``.

    Returns:
        ``dict(mapping, source=..., target=..., drop=...)``; ``drop`` is source minus target mIoU.

    Raises:
        ConfigError: The checkpoint lacks weights of the model.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    figures = {}
    for role, data in (('source', source), ('target', target)):
        result = out_dir / f'{role}.json'
        cfg = copy.deepcopy(source)
        cfg.test_dataloader = copy.deepcopy(data.test_dataloader)
        cfg.test_evaluator = dict(
            type='SegmentationMetric', mapping=mapping, mapping_role=role, result_file=str(result)
        )
        cfg.default_hooks.class_check = dict(type='ClassCheckHook', check_test=False)
        cfg.load_from, cfg.resume = checkpoint, False
        cfg.work_dir = str(out_dir / f'{role}_log')
        cfg.experiment_name = f'domain_{role}_{out_dir.absolute()}'.replace('/', '_')
        cfg.launcher = cfg.get('launcher', 'none')
        launch.test(launch.build_runner(cfg))
        figures[role] = json.loads(result.read_text())
    report = dict(
        mapping=mapping,
        checkpoint=checkpoint,
        **figures,
        drop=figures['source']['mIoU'] - figures['target']['mIoU'],
    )
    write_json(out_dir / 'domain.json', report)
    write_table(
        domain_rows(report),
        ('class', 'source', 'target', 'drop'),
        out_dir / 'domain',
        ('md', 'csv', 'tex'),
        caption=f'IoU of {Path(checkpoint).name}, {mapping}, percent, over the shared classes',
        float_format='.2f',
    )
    return report


def domain_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table: every shared class, then mIoU."""
    keys = [f'IoU/{name}' for name in load_mapping(report['mapping']).classes]
    rows = []
    for name, key in [*((key.removeprefix('IoU/'), key) for key in keys), ('mIoU', 'mIoU')]:
        source, target = report['source'][key], report['target'][key]
        drop = None if source is None or target is None else source - target
        rows.append({'class': name, 'source': source, 'target': target, 'drop': drop})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        load_mapping(args.mapping)
        run(args)
    except (DataError, ValueError, OSError) as error:
        raise SystemExit(f's3pt-domains: {explain(error)}') from None
