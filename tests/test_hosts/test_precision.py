"""fp16 configs without an accelerator."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from s3pt_mm.hosts.precision import cpu_has_bf16, resolve_precision, set_float32_products


def _amp(**more: object) -> ConfigDict:
    return ConfigDict(
        type='AmpOptimWrapper',
        dtype='float16',
        loss_scale='dynamic',
        optimizer=dict(type='SGD', lr=0.5),
        **more,
    )


def test_an_accelerator_keeps_the_config() -> None:
    """Nothing changes and nothing is said."""
    cfg = _amp()
    assert resolve_precision(cfg, accelerator=True) is None
    assert cfg == _amp()


def test_other_wrappers_are_left_alone() -> None:
    """A float32 config has nothing to resolve."""
    cfg = ConfigDict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.5))
    assert resolve_precision(cfg, accelerator=False, bf16=True) is None
    assert cfg.type == 'OptimWrapper'


@pytest.mark.parametrize(('bf16', 'dtype'), [(True, torch.bfloat16), (False, torch.float32)])
def test_forward_runs_in_the_promised_type(bf16, dtype) -> None:
    """The built wrapper computes in that type, keeps float32 weights and takes a step."""
    cfg = _amp(accumulative_counts=1)
    line = resolve_precision(cfg, accelerator=False, bf16=bf16)
    assert line.count('\n') == 0 and ('bfloat16' if bf16 else 'float32') in line
    model = nn.Linear(4, 2)
    wrapper = build_optim_wrapper(model, cfg)
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        out = model(torch.ones(3, 4))
    assert out.dtype == dtype
    wrapper.update_params(out.float().sum())
    assert model.weight.dtype == torch.float32
    torch.testing.assert_close(model.weight, before - 0.5 * 3)


def test_checkpoint_of_an_accelerator_resumes_here() -> None:
    """A stored loss scale is no obstacle in either fallback."""
    for bf16 in (True, False):
        cfg = _amp()
        resolve_precision(cfg, accelerator=False, bf16=bf16)
        wrapper = build_optim_wrapper(nn.Linear(2, 2), cfg)
        state = OptimWrapper.state_dict(wrapper)
        state['loss_scaler'] = dict(scale=65536.0)
        state['param_groups'][0]['lr'] = 0.125
        wrapper.load_state_dict(state)
        assert wrapper.get_lr()['lr'] == [0.125]


def test_cpu_flags(tmp_path) -> None:
    """Emulated bf16 does not count; no list, no bf16."""
    info = tmp_path / 'cpuinfo'
    info.write_text('model name: x\nflags\t\t: fpu avx512f avx2\n')
    assert not cpu_has_bf16(info)
    info.write_text('flags\t\t: fpu avx512f avx512_bf16\n')
    assert cpu_has_bf16(info)
    assert not cpu_has_bf16(tmp_path / 'absent')


def test_float32_products_follow_the_config() -> None:
    """'high' allows TF32 in products and convolutions; other words are refused by name."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        set_float32_products(ConfigDict(float32_matmul_precision='high'))
        assert torch.get_float32_matmul_precision() == 'high' and torch.backends.cudnn.allow_tf32
        set_float32_products(ConfigDict())
        assert torch.get_float32_matmul_precision() == 'high'
        set_float32_products(ConfigDict(float32_matmul_precision='highest'))
        assert not torch.backends.cudnn.allow_tf32
        with pytest.raises(ValueError, match="float32_matmul_precision='tf32'.*'high'"):
            set_float32_products(ConfigDict(float32_matmul_precision='tf32'))
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
