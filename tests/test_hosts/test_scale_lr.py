"""The rate follows the real total batch."""

from __future__ import annotations

import pytest
from mmengine.config import Config, ConfigDict

from s3pt_mm.hosts.scale_lr import scale_learning_rate, total_batch


def _cfg(batch: int = 32, counts: int | None = None, **scaling: object) -> ConfigDict:
    wrapper = dict(optimizer=dict(type='AdamW', lr=5e-4))
    if counts:
        wrapper['accumulative_counts'] = counts
    return ConfigDict(
        train_dataloader=dict(batch_size=batch),
        optim_wrapper=wrapper,
        auto_scale_lr={'enable': True, 'base_batch_size': 256, **scaling},
        param_scheduler=[dict(type='CosineAnnealingLR', eta_min=1e-5)],
    )


@pytest.mark.parametrize(
    ('batch', 'counts', 'ranks', 'lr'),
    [(32, None, 8, 5e-4), (32, None, 1, 6.25e-5), (32, 4, 2, 5e-4), (64, 2, 8, 2e-3)],
)
def test_peak_scales_and_final_does_not(batch, counts, ranks, lr) -> None:
    """Ranks x batch x accumulation; eta_min stays."""
    cfg = _cfg(batch, counts)
    line = scale_learning_rate(cfg, ranks)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr, rel=1e-12)
    assert cfg.param_scheduler[0].eta_min == 1e-5
    assert f'{batch * (counts or 1) * ranks}' in line and '\n' not in line


def test_scaling_happens_once() -> None:
    """mmengine's own scaling is switched off, and a second call finds nothing to do."""
    cfg = _cfg(64)
    scale_learning_rate(cfg, 1)
    assert cfg.auto_scale_lr.enable is False
    assert scale_learning_rate(cfg, 1) is None
    assert cfg.optim_wrapper.optimizer.lr == 1.25e-4


def test_off_means_off() -> None:
    """Without auto_scale_lr, or with enable=False, the rate is what the config says."""
    cfg = _cfg(64, enable=False)
    assert scale_learning_rate(cfg, 8) is None and cfg.optim_wrapper.optimizer.lr == 5e-4
    del cfg['auto_scale_lr']
    assert scale_learning_rate(cfg, 8) is None


def test_errors_name_the_key() -> None:
    """No base, no batch, no rate."""
    with pytest.raises(ValueError, match='auto_scale_lr.base_batch_size is None'):
        scale_learning_rate(_cfg(base_batch_size=None), 1)
    with pytest.raises(ValueError, match='train_dataloader.batch_size is None'):
        total_batch(ConfigDict(train_dataloader=dict(), optim_wrapper=dict()), 1)
    cfg = _cfg()
    del cfg.optim_wrapper.optimizer['lr']
    with pytest.raises(ValueError, match='optimizer.lr is missing'):
        scale_learning_rate(cfg, 1)


@pytest.mark.parametrize('name', ['vits16', 'vitb16'])
def test_shipped_configs(repository, name) -> None:
    """On 8 ranks the pre-training configs have the supplement's total batch and rate."""
    cfg = Config.fromfile(
        repository / 'configs' / 's3pt' / f'{name}_nuscenes.py', import_custom_modules=False
    )
    lr = cfg.optim_wrapper.optimizer.lr
    assert total_batch(cfg, 8) == 256
    scale_learning_rate(cfg, 8)
    assert cfg.optim_wrapper.optimizer.lr == lr == {'vits16': 5e-4, 'vitb16': 7.5e-4}[name]
