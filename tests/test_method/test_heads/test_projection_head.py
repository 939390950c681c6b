"""The projection head: many rows in pieces equal the rows at once, and bad settings are named."""

from __future__ import annotations

import pytest
import torch

from s3pt_mm.method.heads import ProjectionHead, Prototypes


def make(**options: object) -> ProjectionHead:
    torch.manual_seed(0)
    return ProjectionHead(
        in_channels=12, num_prototypes=9, hidden_channels=20, bottleneck_channels=8, **options
    )


@pytest.mark.parametrize('rows', [0, 1, 7, 8, 9, 23])
def test_pieces_equal_the_whole(rows: int) -> None:
    whole, pieces = make().double(), make(rows_at_a_time=8).double()
    inputs = torch.randn(rows, 12, dtype=torch.double)
    results = []
    for head in (whole, pieces):
        leaf = inputs.clone().requires_grad_()
        out = head(leaf)
        (out * torch.arange(8.0).double()).sum().backward()
        results.append([out, leaf.grad, *(p.grad for p in head.mlp.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert results[0][0].shape == (rows, 8)


def test_batch_norm_sees_all_rows_at_once() -> None:
    head = make(rows_at_a_time=4, batch_norm=True, init='xavier')
    rows = torch.randn(10, 12)
    torch.testing.assert_close(head(rows), head._project(rows))


@pytest.mark.parametrize('options', [dict(rows_at_a_time=0), dict(num_layers=0), dict(init='ones')])
def test_bad_settings_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        make(**options)


def test_unit_norm_and_vmf_exclude_each_other() -> None:
    with pytest.raises(ValueError, match='unit_norm'):
        Prototypes(4, 8, kind='vmf', unit_norm=True)
    with pytest.raises(ValueError, match='prototype kind'):
        Prototypes(4, 8, kind='cosine')
