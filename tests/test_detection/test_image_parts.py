"""Grid mask, VoVNet and CPFPN."""

from __future__ import annotations

import pytest
import torch

from s3pt_mm.detection.petr.cp_fpn import S3PTCPFPN
from s3pt_mm.detection.petr.grid_mask import GridMask
from s3pt_mm.detection.petr.vovnet import S3PTVoVNet


def test_grid_mask_blanks_squares_alike_in_all_images() -> None:
    mask = GridMask(prob=1.0, ratio=0.5).train()
    images = torch.ones(4, 3, 40, 60)
    shares = []
    for _ in range(30):
        out = mask(images)
        assert torch.equal(out, out[:1, :1].expand_as(out))
        assert set(out.unique().tolist()) <= {0.0, 1.0}
        blank = out[0, 0] == 0
        # The blanked set is a product of rows and columns: squares on a grid.
        assert torch.equal(blank, blank.any(1)[:, None] & blank.any(0))
        shares.append(float(blank.float().mean()))
    assert 0.1 < sum(shares) / len(shares) < 0.4  # a quarter at ratio 0.5


def test_grid_mask_rests() -> None:
    images = torch.rand(2, 3, 20, 20)
    assert GridMask(prob=1.0).eval()(images) is images
    assert GridMask(prob=0.0).train()(images) is images
    hit = sum(GridMask(prob=0.7).train()(images) is not images for _ in range(200))
    assert 110 < hit < 170
    with pytest.raises(ValueError, match='ratio'):
        GridMask(ratio=1.0)


def test_vovnet_modes() -> None:
    with torch.device('meta'):
        model = S3PTVoVNet(depth=39, frozen_stages=2).train()
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert model.stage3.training
    assert not any(p.requires_grad for p in model.stem.parameters())
    assert not any(p.requires_grad for p in model.stage2.parameters())
    assert all(p.requires_grad for p in model.stage3.parameters())
    with pytest.raises(ValueError, match='depth'):
        S3PTVoVNet(depth=19)
    with pytest.raises(ValueError, match='out_stages'):
        S3PTVoVNet(depth=39, out_stages=(1,))


def test_recomputing_vovnet_changes_nothing() -> None:
    model = S3PTVoVNet(depth=39, out_stages=(2, 3)).train()
    image = torch.randn(1, 3, 32, 32)
    grads = []
    for recompute in (True, False):
        for block in model.modules():
            if hasattr(block, 'recompute'):
                block.recompute = recompute
        model.zero_grad()
        sum(out.square().mean() for out in model(image)).backward()
        grads.append(model.stem[0].weight.grad.clone())
    torch.testing.assert_close(*grads)


def test_cp_fpn_wants_its_inputs() -> None:
    neck = S3PTCPFPN(in_channels=[4, 8], out_channels=6)
    assert [tuple(o.shape) for o in neck([torch.rand(1, 4, 6, 6), torch.rand(1, 8, 3, 3)])] == [
        (1, 6, 6, 6),
        (1, 6, 3, 3),
    ]
    with pytest.raises(ValueError, match='2 inputs'):
        neck([torch.rand(1, 4, 6, 6)])
