"""Colours, small features and clusters of the page of ``s3pt-look``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.labelled_images import IMAGENET_MEAN, IMAGENET_STD
from s3pt_mm.method.clustering import ClusteringConfig
from s3pt_mm.probes.clusters import Views, evaluate
from s3pt_mm.probes.patch_pictures import draw_crops, fit_colours, joint_clusters, shrink
from s3pt_mm.probes.token_labels import LabelledPoints


def images_of(count: int = 4, patches: int = 300, width: int = 24) -> list[torch.Tensor]:
    """Tokens with three strong directions in turned axes, and an offset."""
    turn = torch.linalg.qr(torch.randn(width, width))[0]
    spread = torch.cat([torch.tensor([9.0, 5.0, 3.0]), torch.full((width - 3,), 0.2)])
    return [(torch.randn(patches, width) * spread + 2) @ turn for _ in range(count)]


def test_one_analysis_over_all_images() -> None:
    """Components are the singular vectors in all but sign, and the colours follow them."""
    tokens = images_of()
    colours = fit_colours(tokens)
    centred = torch.cat(tokens).double() - torch.cat(tokens).double().mean(0)
    _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
    cosines = (colours.basis.T * vectors[:3]).sum(1).abs()
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    variances = values.square()
    assert colours.explained == pytest.approx(float(variances[:3].sum() / variances.sum()))
    painted = np.concatenate([colours.paint(image) for image in tokens])
    assert painted.shape == (1200, 3) and painted.dtype == np.uint8
    # A fiftieth lies beyond either end.
    np.testing.assert_allclose((painted == 0).mean(0), 0.02, atol=0.005)
    np.testing.assert_allclose((painted == 255).mean(0), 0.02, atol=0.005)
    assert (fit_colours(tokens).basis == colours.basis).all()  # signs, too


def test_foreground_is_one_side_of_the_first_component() -> None:
    tokens = images_of()
    plain = fit_colours(tokens)
    first = torch.cat([plain.scores(image)[:, 0] for image in tokens])
    for threshold, expected in ((0.6, first > 0.6), (-0.4, first < 0.4)):
        colours = fit_colours(tokens, threshold)
        chosen = torch.cat([colours.is_foreground(image) for image in tokens])
        assert chosen.equal(expected) and 100 < int(chosen.sum()) < 900
        painted = np.concatenate([colours.paint(image) for image in tokens])
        assert (painted[~expected.numpy()] == 0).all() and painted[expected.numpy()].any()
        assert not torch.allclose(colours.mean, plain.mean)  # fitted to what is left
    with pytest.raises(ValueError, match='no patch is on that side'):
        fit_colours(tokens, 50.0)


def test_small_features_keep_cosines_and_say_what_they_lose() -> None:
    tokens = images_of(width=48)
    whole, short = shrink(tokens, 999), shrink(tokens, 2)
    assert whole.values[0].shape == (300, 48) and whole.values[0].dtype == np.int8
    assert np.abs(whole.values[0]).max() == 127
    unit = torch.nn.functional.normalize(torch.cat(tokens), dim=-1)
    for small, limit in ((whole, 0.006), (short, 0.4)):
        near = torch.from_numpy(np.concatenate(small.values)).float()
        near = torch.nn.functional.normalize(near, dim=-1)
        error = (unit @ unit.T - near @ near.T).abs()
        assert small.cosine_error[0] == pytest.approx(float(error.mean()), rel=0.3)
        assert small.cosine_error[0] < limit and small.cosine_error[1] < 2 * limit
    assert whole.same_nearest > 0.85 > 0.5 > short.same_nearest
    assert short.cosine_error[0] > 4 * whole.cosine_error[0]


def test_equal_tokens_make_no_nan() -> None:
    tokens = [torch.ones(9, 5)] * 2
    assert fit_colours(tokens).paint(tokens[0]).max() == 0
    assert np.isfinite(shrink(tokens, 3).cosine_error).all()


class MeanColour(torch.nn.Module):
    """One extra token, then the mean colour of each patch."""

    num_extra_tokens = 1

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        tokens = torch.nn.functional.avg_pool2d(images, 16).flatten(2).transpose(1, 2)
        return (torch.cat([tokens[:, :1], tokens], dim=1),)


def test_clusters_of_two_views() -> None:
    """Those that ``s3pt-clusters`` finds in the same views; a draw can be repeated."""
    small = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC))
    crops = [draw_crops(image, Path('a.png'), index, 224) for index in (3, 4)]
    again = draw_crops(image, Path('a.png'), 3, 224)
    assert (again.pixels[0] == crops[0].pixels[0]).all() and (again.boxes == crops[0].boxes).all()
    assert (crops[1].boxes != crops[0].boxes).any()
    settings = dict(patch=16, first=0, device='cpu')
    config = ClusteringConfig(num_clusters=8)
    labels = joint_clusters(MeanColour(), crops, config, **settings)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    none = LabelledPoints(np.zeros((0, 2)), *(np.zeros(n, int) for n in (0, 1, 1)))
    views = [
        Views(crop.pixels, none, crop.boxes, crop.flips, np.zeros((0, 3)), (400, 300))
        for crop in crops
    ]
    rows = evaluate(
        views,
        lambda images: MeanColour()((images - mean) / std)[0][:, 1:],
        {'same': dict(num_clusters=8)},
        seed=0,
    )
    for row, found in zip(rows, labels, strict=True):
        np.testing.assert_array_equal(found, row['clusters'])
        assert len(np.unique(found)) > 3
    with pytest.raises(DataError, match=r'a\.png: the image has only 1 x 1 pixels'):
        draw_crops(image[:1, :1], Path('a.png'), 3, 224)
    with pytest.raises(ValueError, match='--view-size 224: no multiple of the patch, 15'):
        joint_clusters(MeanColour(), crops, config, **settings | dict(patch=15))
