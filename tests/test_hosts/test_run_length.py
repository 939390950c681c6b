"""``epochs=N``: loop, schedules, warm-ups and hooks agree."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.hosts.options import merge_options
from s3pt_mm.hosts.run_length import follow_length, set_epochs

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def resized(name: str, *options: str, epochs: int | None = None) -> tuple[Config, str | None]:
    cfg = Config.fromfile(CONFIGS / name, import_custom_modules=False)
    given = merge_options(cfg, options)
    return cfg, follow_length(cfg, set_epochs(cfg, epochs, given))


def times(cfg: Config) -> list[tuple]:
    return [(s['begin'], s.get('end'), s.get('T_max')) for s in cfg.param_scheduler]


LEAVES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_lengths_stay(path: Path) -> None:
    before = Config.fromfile(path, import_custom_modules=False)
    cfg, line = resized(path)
    assert line is None and cfg.to_dict() == before.to_dict()


@pytest.mark.parametrize('option', ['epochs=100', 'train_cfg.max_epochs=100'])
def test_500_epochs_cut_to_100_are_the_100_epoch_recipe(option: str) -> None:
    """Both ways to say it; the shipped recipe of that length is the witness."""
    cfg, line = resized('s3pt/vits16_nuscenes.py', option)
    wanted, _ = resized('s3pt/vits16_nuscenes_100e.py')
    assert [dict(s) for s in cfg.param_scheduler] == [dict(s) for s in wanted.param_scheduler]
    assert cfg.train_cfg == wanted.train_cfg and cfg.default_hooks == wanted.default_hooks
    assert cfg.epochs == 100 and 'epochs=100 in place of 500' in line


@pytest.mark.parametrize(
    ('epochs', 'schedule', 'temperature', 'frozen'),
    [
        (1, [(0, 1, 1), (0, 1, 1)], 1, 0),  # no warm-up in a run of one epoch
        (3, [(0, 1, None), (1, 3, 2), (0, 3, 3)], 1, 1),
        (20, [(0, 2, None), (2, 20, 18), (0, 20, 20)], 10, 1),
        (1000, [(0, 10, None), (10, 1000, 990), (0, 1000, 1000)], 30, 1),
    ],
)
def test_warm_ups_keep_their_length_up_to_their_share(
    epochs, schedule, temperature, frozen
) -> None:
    cfg, _ = resized('s3pt/vits16_nuscenes.py', epochs=epochs)
    assert times(cfg) == schedule and cfg.train_cfg.max_epochs == epochs
    hooks = cfg.default_hooks
    assert hooks.method_schedule.linear.teacher_temperature.epochs == temperature
    assert hooks.last_layer_freeze.epochs == frozen


def test_a_child_config_that_sets_one_of_the_two_is_followed(tmp_path: Path) -> None:
    for text in ('epochs = 40', 'train_cfg = dict(max_epochs=40)'):
        child = tmp_path / 'child.py'
        child.write_text(f"_base_ = ['{CONFIGS}/dino/vits16_nuscenes.py']\n{text}\n")
        cfg, _ = resized(child)
        assert (cfg.epochs, cfg.train_cfg.max_epochs) == (40, 40)
        assert times(cfg) == [(0, 4, None), (4, 40, 36), (0, 40, 40)]
        again = follow_length(cfg, {})
        assert again is None  # the config that a run leaves behind gives the same run


def test_without_schedules_two_lengths_are_refused(tmp_path: Path) -> None:
    """An inherited ``epochs`` was taken for the new length: 500 epochs in place of 1."""
    child = tmp_path / 'child.py'
    base = f"_base_ = ['{CONFIGS}/dino/vits16_nuscenes.py']\nparam_scheduler = []\n"
    for text in ('train_cfg = dict(max_epochs=1)', 'epochs = 1'):
        child.write_text(base + text + '\n')
        with pytest.raises(ConfigError, match='set both'):
            resized(child)
        for options in (dict(epochs=7), dict()):
            words = () if options else ('epochs=7',)
            cfg, _ = resized(child, *words, **options)
            assert (cfg.epochs, cfg.train_cfg.max_epochs) == (7, 7)
        cfg, _ = resized(child, 'train_cfg.max_epochs=7')
        assert (cfg.epochs, cfg.train_cfg.max_epochs) == (7, 7)


def test_petr_and_the_probe_follow() -> None:
    cfg, _ = resized('petr/vits16_nuscenes.py', epochs=10)
    assert [(s.up, s.total, s.warmup) for s in cfg.param_scheduler] == [(4, 10, 1), (4, 10, 0)]
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (10, 10)
    cfg, _ = resized('segmenter/linear_vits16_nuimages.py', 'max_iters=400')
    assert (cfg.param_scheduler[0]['end'], cfg.train_cfg.max_iters) == (400, 400)
    assert cfg.train_cfg.val_interval == 400


def test_schedulers_of_the_command_line_are_left_as_they_are() -> None:
    options = ['train_cfg.max_iters=400', 'param_scheduler.0.end=300']
    cfg, _ = resized('segmenter/linear_vits16_nuimages.py', *options)
    assert (cfg.param_scheduler[0].end, cfg.train_cfg.max_iters) == (300, 400)


@pytest.mark.parametrize('said', ['--epochs', 'epochs', 'train_cfg.max_epochs'])
def test_a_length_beside_schedulers_of_the_command_line_is_kept_and_said(said: str) -> None:
    """``--epochs`` was lost; hooks and validation kept the times of the long run."""
    epochs, options = (3, ()) if said == '--epochs' else (None, (f'{said}=3',))
    name = 's3pt/vits16_nuscenes.py'
    cfg, line = resized(name, *options, 'param_scheduler.1.eta_min=0.1', epochs=epochs)
    assert (cfg.epochs, cfg.train_cfg.max_epochs) == (3, 3)
    assert times(cfg) == times(resized(name)[0]) and cfg.param_scheduler[1].eta_min == 0.1
    hooks = cfg.default_hooks
    assert hooks.method_schedule.linear.teacher_temperature.epochs == 1
    assert 'epochs=3' in line and 'end at 500' in line and 'param_scheduler' in line
    _, line = resized(name, 'param_scheduler.1.eta_min=0.1')
    assert line is None


@pytest.mark.parametrize('schedule', [(), ('param_scheduler.1.eta_min=0.1',)])
@pytest.mark.parametrize('epochs', [None, 500, 7])
def test_two_lengths_of_the_command_line_are_refused(epochs, schedule) -> None:
    """Also where one of them is the config's own."""
    options = ('train_cfg.max_epochs=4', *schedule, *(() if epochs else ('epochs=5',)))
    with pytest.raises(ConfigError, match=f'epochs={epochs or 5} and train_cfg.max_epochs=4'):
        resized('s3pt/vits16_nuscenes.py', *options, epochs=epochs)
    if epochs:
        with pytest.raises(ConfigError, match=f'--epochs {epochs} and --cfg-options epochs=5'):
            resized('s3pt/vits16_nuscenes.py', 'epochs=5', *schedule, epochs=epochs)


def test_other_kinds_of_configs_are_left_alone() -> None:
    cfg = Config(dict(train_cfg=dict(max_epochs=5), param_scheduler=[dict(type='X', end=90)]))
    assert follow_length(cfg, {}) is None and cfg.param_scheduler[0].end == 90
    milestones = [dict(type='MultiStepLR', milestones=[60, 80], end=100, by_epoch=True)]
    cfg = Config(dict(train_cfg=dict(max_epochs=100), param_scheduler=milestones))
    follow_length(cfg, set_epochs(cfg, 10, {}))
    assert (cfg.param_scheduler[0]['milestones'], cfg.train_cfg.max_epochs) == ([6, 8], 10)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['epochs=3', 'train_cfg.max_epochs=4'], 'epochs=3 and train_cfg.max_epochs=4'),
        (['epochs=0'], 'at least 1'),
        (['epochs=1.5'], 'whole number'),
        (['max_iters=5'], 'counts epochs: set epochs=N'),
    ],
)
def test_what_cannot_be_is_refused(options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        resized('s3pt/vits16_nuscenes.py', *options)


def test_epochs_of_a_run_that_counts_iterations_are_refused() -> None:
    with pytest.raises(ConfigError, match='max_iters=N'):
        resized('segmenter/linear_vits16_nuimages.py', epochs=3)
    with pytest.raises(ConfigError, match='counts iterations: set max_iters=N'):
        resized('toydrive/petr_vitt16.py', 'epochs=3')
