"""``--cfg-options``: values as they were meant, and no key that nothing reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.hosts.arguments import check_arguments
from s3pt_mm.hosts.options import merge_options, read_value

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
ROOT_KEY = 'train_dataloader.dataset.data_root'


@pytest.fixture
def cfg() -> Config:
    return Config.fromfile(CONFIGS / 's3pt/vits16_nuscenes.py')


@pytest.mark.parametrize('path', ['/x/with space', '/x/a,b', '2024', '[x]', "it's", '1e3', 'True'])
def test_paths_are_taken_as_they_are(cfg: Config, path: str) -> None:
    merge_options(cfg, [f'{ROOT_KEY}={path}', f'train_dataloader.dataset.data_prefix.img={path}'])
    assert cfg.train_dataloader.dataset.data_root == path
    assert cfg.train_dataloader.dataset.data_prefix.img == path


@pytest.mark.parametrize('key', ['depth_map', 'class_set', 'seg_map_suffix', 'init'])
def test_other_keys_that_hold_paths(key: str) -> None:
    assert [read_value(f'a.{key}', text) for text in ('/x/a,b', '2024')] == ['/x/a,b', '2024']


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('2024', ['2024']),
        ('0123,1e3', ['0123', '1e3']),
        ("['2024', True]", ['2024', 'True']),
        ('[0-9]*_[LR]', ['[0-9]*_[LR]']),
        ('[[0-9]*,a b/*]', ['[0-9]*', 'a b/*']),
        ('None', None),
    ],
)
def test_patterns_and_names_are_texts(text: str, value: list[str] | None) -> None:
    """A folder called 2024 was read as a number, ``suffixes=.jpg`` as four letters."""
    for key in ('include', 'exclude', 'suffixes', 'cameras'):
        assert read_value(f'train_dataloader.dataset.{key}', text) == value


@pytest.mark.parametrize(
    ('text', 'current', 'value'),
    [
        ('3', None, 3),
        ('3e-4', 0.1, 3e-4),
        ('True', False, True),
        ('None', 'x', None),
        ('[1,2]', None, [1, 2]),
        ('(0.3, 1.0)', (0.2, 1.0), (0.3, 1.0)),
        ('a,b', None, ['a', 'b']),
        ('a, b', 'text', 'a, b'),  # a text replaces a text
        ('[a,b]', 'text', ['a', 'b']),
        ('512.', 'dynamic', 512.0),
        ('[a', None, '[a'),
    ],
)
def test_other_values_are_read_as_openmmlab_does(text, current, value) -> None:
    assert read_value('model.some_number', text, current) == value


def test_no_checkpoint_is_none_and_no_file_of_that_name() -> None:
    assert read_value('model.backbone.init_cfg.checkpoint', 'None', '/x') is None


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('max_epochs=1', 'nothing reads.*Effective: epochs, train_cfg.max_epochs'),
        ('train_pipeline.3.size=32', 'Effective: train_dataloader.dataset.pipeline.3.size'),
        ('data_root=/x', 'Effective: train_dataloader.dataset.data_root'),
        ('modle.type=X', 'Effective: model.type'),
        ('nonsense=1', 'nothing reads this key'),
        ('train_dataloader', 'write KEY=VALUE'),
        ('train_dataloader.dataset.pipeline.30.size=1', 'pipeline.30.size: the config has no such'),
        ('default_hooks.checkpoint.intervall=3', 'did you mean default_hooks.checkpoint.interval'),
        ('default_hooks.checkpont.interval=3', 'did you mean default_hooks.checkpoint'),
        ('custom_hooks.0.interval=3', 'custom_hooks is a list'),
        ('train_dataloader.dataset.dataroot=3', 'did you mean train_dataloader.dataset.data_root'),
        ('train_dataloader.dataset.pipeline.3.sizes=1', 'TwoViews has no such.*pipeline.3.size'),
        ('train_dataloader.batchsize=3', 'did you mean train_dataloader.batch_size'),
        ('train_dataloader.sampler.seeds=3', 'KeyedSampler.*sampler.seed'),
        ('train_cfg.max_epoch=3', 'did you mean train_cfg.max_epochs'),
        ('optim_wrapper.optimizer.learning_rate=3', 'AdamW has no such argument; it has .*lr'),
        ('optim_wrapper.accumulate=3', 'AmpOptimWrapper.*accumulative_counts'),
        ('param_scheduler.1.Tmax=3', 'did you mean param_scheduler.1.T_max'),
        ('randomness.sed=1', 'did you mean randomness.seed'),
        ('env_cfg.mp_cfg.mp_start=spawn', 'did you mean env_cfg.mp_cfg.mp_start_method'),
        ('env_cfg.dist_cfg.timout=3', 'did you mean env_cfg.dist_cfg.timeout'),
        ('optim_wrapper.clip_grad.max_nrom=3', 'did you mean optim_wrapper.clip_grad.max_norm'),
        ('model.queue_image=3', 'did you mean model.queue_images'),
        ('model.head.num_prototype=3', 'did you mean model.head.num_prototypes'),
        ('log_processor.window=3', 'did you mean log_processor.window_size'),
    ],
)
def test_a_key_that_nothing_reads_is_refused_with_the_one_that_is_read(cfg, option, words) -> None:
    with pytest.raises(ConfigError, match=words):
        check_arguments(cfg, merge_options(cfg, [option]))


def test_a_variable_that_the_model_shadows_is_refused() -> None:
    cfg = Config.fromfile(CONFIGS / 'segmenter/linear_vits16_nuimages.py')
    with pytest.raises(ConfigError, match='Effective: model.data_preprocessor.size'):
        merge_options(cfg, ['data_preprocessor.size=(32,32)'])


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('model.test_cfg.strid=(3,3)', 'did you mean model.test_cfg.stride'),
        ('model.backbone.init_cfg.checkpont=/x', 'did you mean .*init_cfg.checkpoint'),
        ('val_dataloader.dataset.data_prefix.img=/x', 'data_prefix has no such.*img_path'),
    ],
)
def test_dicts_that_hosts_read_by_name_are_looked_at_too(option, words) -> None:
    """What they do not know they ignore."""
    cfg = Config.fromfile(CONFIGS / 'segmenter/linear_vits16_nuimages.py')
    check_arguments(cfg, merge_options(cfg, ['model.test_cfg.threshold=0.3']))  # mmseg's
    with pytest.raises(ConfigError, match=words):
        check_arguments(cfg, merge_options(cfg, [option]))


LEAVES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_shipped_config_passes(path: Path) -> None:
    check_arguments(Config.fromfile(path))


def test_a_typing_error_in_a_file_is_found_too(cfg: Config) -> None:
    cfg.default_hooks.teacher_update.strat = 0.99
    with pytest.raises(ConfigError, match='did you mean default_hooks.teacher_update.start'):
        check_arguments(cfg)
