"""Every command of the docs runs, at tiny size and in reading order, or has a reason why not.

A new command without an entry in ``RULES`` fails, and so does an entry without a command.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from tests.test_docs_commands import PAGES, ROOT, commands, module_of

NO_WORKERS = ('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False')
NO_VAL_WORKERS = ('val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False')
PRETRAINING = ('model.head.num_prototypes=32', 'model.head.hidden_channels=32', *NO_WORKERS)
PRETRAINING += ('train_dataloader.batch_size=4',)
TOY = ('model.backbone.arch.num_layers=1', *PRETRAINING)
SMALL = (*PRETRAINING, 'model.queue_images=8', 'train_cfg.max_epochs=1')
SMALL += ('model.backbone.arch=deit-tiny',)
PETR = ('model.img_backbone.arch.num_layers=1', 'default_hooks.checkpoint.interval=1')
PETR_TRAIN = (*PETR, 'train_cfg.max_iters=1', 'train_cfg.val_interval=1')
PETR_TRAIN += ('train_dataloader.batch_size=1',)
PROBE = ('model.backbone.arch.num_layers=1', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2')
PROBE += ('train_dataloader.batch_size=2', *NO_WORKERS, *NO_VAL_WORKERS, 'param_scheduler.0.end=2')
PROBE += ('val_evaluator.result_file=work_dirs/probe.json',)
TEST = tuple(option.replace('val_', 'test_') for option in NO_VAL_WORKERS)

VITS = 'work_dirs/s3pt/vits16_nuscenes/epoch_1.pth'
VITT = 'work_dirs/toydrive/s3pt_vitt16/epoch_2.pth'
PETR_VITT = 'work_dirs/toydrive/petr_vitt16/iter_1.pth'
LINEAR_VITT = 'work_dirs/toydrive/linear_vitt16_nuimages/iter_2.pth'
TOY_PETR = {'configs/petr/vits16_nuscenes': 'configs/toydrive/petr_vitt16'}
TOY_LINEAR = {'configs/segmenter/mask_vits16_nuimages': 'configs/toydrive/linear_vitt16_nuimages'}
DEVELOPERS = 'needs a checkout: tests/test_dev'


class Rule(NamedTuple):
    """What becomes of the commands that a pattern fits; the first that fits counts.

    Attributes:
        pattern: Searched in the command.
        why_not: The reason why it does not run.
        swap: Words of the page, and what stands for them here.
        options: Added at the end.
        settings: ``KEY=VALUE`` added to ``--cfg-options``.
    """

    pattern: str
    why_not: str = ''
    swap: dict[str, str] = {}
    options: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


RULES = (
    Rule('^python tools/dev/', DEVELOPERS),
    Rule('model.compile', 'compiles for minutes: tests/test_method/test_algorithms'),
    Rule(r'FORMAT|KEY=VALUE|IN OUT', 'a form, not a command'),
    Rule('--launcher', 'several ranks: tests/test_reliability/test_dist_train.py'),
    Rule('--init', 'needs a download: tests/test_weights/test_public.py'),
    Rule('classes.yaml', 'needs a download (CamVid)'),
    Rule('data pandaset|data/pandaset', 'needs a download: tests/test_data/test_formats'),
    Rule('cityscapes_to_my_city', "needs the page's mapping: tests/test_docs.py"),
    Rule('s3pt-data folder|folder_infos|data/mine', 'needs a log: tests/test_data/test_formats'),
    Rule('depth_map|exclude=', 'options of the folder run: tests/test_data'),
    Rule('nuimages_to_cityscapes', 'needs a download: tests/test_segmentation/test_toydrive.py'),
    Rule('format_only', "needs nuScenes' whole split: mmdet3d's own metric"),
    Rule('s3pt-sweep', 'a process a rate: tests/test_segmentation/test_toydrive.py'),
    Rule('s3pt-toydrive --out data/toydrive( --seed 0)?$', 'minutes: the tiny one runs'),
    Rule('s3pt-toydrive --(out .* --tiny|help)'),
    Rule('s3pt-data', swap={'v1.0-trainval': 'v1.0-mini'}),
    Rule('configs/toydrive/s3pt_vitt16.py', settings=TOY),
    Rule('toydrive/dino_vitt16.py', settings=(*TOY, 'train_cfg.max_epochs=1')),
    Rule(
        'configs/s3pt/vits16_nuscenes.py', settings=(*SMALL, 'train_dataloader.dataset.indices=4')
    ),
    Rule('s3pt-check|s3pt-prepare', swap={'/my/': ''}),
    Rule('shards.parquet', swap={'/my/': ''}, settings=SMALL),
    Rule('mask_vits16_own_labels', 'needs labels of one\'s own: tests/test_segmentation'),
    Rule('configs/s3pt/vits16_image_folder.py', swap={'/my/photos': 'photos'}, settings=SMALL),
    Rule('s3pt-convert', swap={'epoch_3.': VITS.replace('.pth', '.')}),
    Rule('s3pt-clusters', options=('--max-images', '2', '--seeds', '0')),
    Rule('--against dino', 'needs a download: tests/test_cli'),
    Rule(
        's3pt-look work_dirs',
        swap={
            'work_dirs/mine/epoch_100.backbone.safetensors frames': f'{VITT} photos',
            '352 640': '64 96',
        },
    ),
    Rule('--to onnx', swap={'work_dirs/mine/epoch_100.pth': VITT, '368 1232': '64 96'}),
    Rule('s3pt-embed', swap={'work_dirs/mine/epoch_100.pth': VITT, 'frames ': 'photos '}),
    Rule(
        's3pt-train configs/(petr|toydrive/petr_vitt16)',
        swap={
            **TOY_PETR,
            'work_dirs/s3pt/vits16_nuscenes/epoch_500.pth': VITT,
            'work_dirs/toydrive/s3pt_vitt16/epoch_40.pth': VITT,
        },
        settings=PETR_TRAIN,
    ),
    Rule(
        's3pt-test configs/petr|submission=',
        swap={
            **TOY_PETR,
            'test_evaluator.1.': 'test_evaluator.',
            'CONFIG': 'configs/toydrive/petr_vitt16.py',
            'CHECKPOINT': PETR_VITT,
        },
        settings=PETR,
    ),
    Rule(
        's3pt-report ranges',
        swap={
            'v1.0-trainval': 'v1.0-mini',
            **{f'work_dirs/{name}/all': 'work_dirs/all' for name in ('dino', 'cribo', 's3pt')},
        },
        options=('--split', 'seen'),
    ),
    Rule(
        's3pt-train configs/segmenter/mask_vits16_nuimages',
        swap={**TOY_LINEAR, 'work_dirs/s3pt/vits16_nuscenes_100e/epoch_100.pth': VITT},
        settings=PROBE,
    ),
    Rule(
        's3pt-report (table5|objectwise)',
        swap={
            f'{place}/sweep.json': 'work_dirs/probe.json'
            for place in ('work_dirs/sweep/s3pt', 'a', 'b')
        },
    ),
    Rule(
        's3pt-knn CHECKPOINT',
        swap={'CHECKPOINT --arch vits': 'random --arch vitt'},
        options=('--image-size', '64', '64', '--max-images', '2', '--crops', '1'),
    ),
    Rule(
        's3pt-test CONFIG CHECKPOINT --out',
        swap={'CONFIG': 'configs/toydrive/linear_vitt16_nuimages.py', 'CHECKPOINT': LINEAR_VITT},
        settings=(*PROBE[:1], *TEST),
    ),
    Rule('s3pt-report qualitative', swap={'predictions/cribo': 'predictions/s3pt'}),
)  # fmt: skip


def all_commands() -> Iterator[str]:
    """Of all pages in reading order: the first steps, then the others."""
    first = {'get_started.md': 0, 'README.md': 1, 'toydrive.md': 2, 'pretraining.md': 3}
    for page in sorted(PAGES, key=lambda page: (first.get(page.name, 9), page.name)):
        yield from commands(page)


def rule_of(command: str) -> Rule | None:
    """The first rule whose pattern fits."""
    return next((rule for rule in RULES if re.search(rule.pattern, command)), None)


def tiny(command: str, rule: Rule) -> list[str]:
    """Words of the command as it runs here."""
    for old, new in rule.swap.items():
        command = command.replace(old, new)
    words = shlex.split(command)
    if rule.settings:
        if '--cfg-options' not in words:
            words.append('--cfg-options')
        at = words.index('--cfg-options') + 1
        words[at:at] = rule.settings
    return [*words, *rule.options]


def test_every_command_has_a_rule_and_every_rule_a_command():
    found = list(all_commands())
    missing = [command for command in found if rule_of(command) is None]
    assert not missing, f'no rule in {__name__}: {missing}'
    used = {rule.pattern for command in found if (rule := rule_of(command))}
    assert [rule.pattern for rule in RULES if rule.pattern not in used] == []


@pytest.mark.slow
def test_commands_run(tmp_path):
    for kind in ('nuscenes', 'nuimages'):
        (tmp_path / 'data').mkdir(exist_ok=True)
        (tmp_path / 'data' / kind).symlink_to(Path('toydrive') / kind)
    (tmp_path / 'photos').mkdir()
    for number in range(4):
        Image.effect_noise((320, 240), 40 + number).convert('RGB').save(
            tmp_path / 'photos' / f'{number}.jpg'
        )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    server = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-m', 'tests.command_runs'],
        cwd=tmp_path, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    done, failed = set(), []
    with server:
        for command in all_commands():
            rule = rule_of(command)
            if rule is None or rule.why_not:
                continue
            words = tiny(command, rule)
            if tuple(words) in done:
                continue
            done.add(tuple(words))
            log = tmp_path / f'{len(done):02d}.log'
            print(json.dumps([module_of(command)[0], str(log), *words[1:]]), file=server.stdin)
            server.stdin.flush()
            code, seconds = json.loads(server.stdout.readline())
            print(f'{seconds:5.1f} s  {shlex.join(words)}')
            if code:
                failed.append(f'{command}\n-> {shlex.join(words)}\n{log.read_text()[-1500:]}')
    assert not failed, '\n\n'.join(failed)
