"""Probes that place cannot fool: crops, place removed, and the controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models.backbones import VisionTransformer
from PIL import Image

from s3pt_mm.data import labelled_images
from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.method.backbone import PretrainVisionTransformer
from s3pt_mm.probes.controls import (
    CONSTANT,
    control_maps,
    feature_map_of,
    position_scale,
    untrained,
)
from s3pt_mm.probes.dense_knn import PatchMemory
from s3pt_mm.probes.evaluation import (
    beside_controls,
    evaluate,
    evaluate_with_controls,
    knn_head,
    linear_head,
)
from s3pt_mm.probes.patches import RandomCrops, probe_patches, subtract_place

HEADS = dict(knn=knn_head(k=5), linear=linear_head(iterations=30))


def vit(kind=VisionTransformer, **changes) -> VisionTransformer:
    torch.manual_seed(3)
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    backbone = kind(arch=arch, img_size=32, patch_size=8, **changes)
    backbone.eval()
    return backbone


def street(tmp_path, count: int = 8) -> LabelledImages:
    """Class 0 above and class 1 below a border of varying height: place says nearly all of it;
    bright squares of class 2 lie anywhere."""
    generator = np.random.default_rng(0)
    names = dict(zip(('above', 'below', 'thing'), (0, 24, 17), strict=True))
    pairs = []
    for number in range(count):
        raw = np.zeros((64, 64), np.uint8)
        raw[int(generator.integers(24, 40)) :] = names['below']
        image = generator.integers(100, 140, (64, 64, 3)).astype(np.uint8)
        for _ in range(3):
            y, x = generator.integers(0, 48, 2)
            raw[y : y + 16, x : x + 16], image[y : y + 16, x : x + 16] = names['thing'], 255
        Image.fromarray(image).save(tmp_path / f'{number}.png')
        Image.fromarray(raw).save(tmp_path / f'{number}_mask.png')
        pairs.append((tmp_path / f'{number}.png', tmp_path / f'{number}_mask.png'))
    return LabelledImages(pairs, class_set='nuimages5', image_size=(32, 32))


def colour(images):
    return F.avg_pool2d(images, 8)


def test_a_crop_has_the_pixels_and_labels_of_its_box(tmp_path):
    images = street(tmp_path, count=1)
    whole, crop = images[0], images.read(0, lambda w, h: (16, 8, 48, 40))
    pixels = np.asarray(Image.open(images.pairs[0][0]), np.float32)[8:40, 16:48]
    got = crop.image * torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    got += torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    np.testing.assert_allclose(got.permute(1, 2, 0), pixels, atol=0.51)
    np.testing.assert_array_equal(crop.label_map, whole.label_map[8:40, 16:48])


def test_a_jpeg_decoded_small_is_cropped_at_the_same_box(tmp_path):
    ramp = np.linspace(0, 255, 640)[None, :, None].repeat(400, 0).repeat(3, 2).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / 'a.jpg', quality=95)
    Image.fromarray(np.zeros((400, 640), np.uint8)).save(tmp_path / 'a.png')
    images = LabelledImages(
        [(tmp_path / 'a.jpg', tmp_path / 'a.png')], class_set='nuimages5', image_size=(40, 40)
    )
    red = images.read(0, lambda w, h: (160, 0, 560, 400)).image[0] * 58.395 + 123.675
    expected = ramp[0, 160:560, 0].reshape(40, 10).mean(1)
    np.testing.assert_allclose(red.mean(0), expected, atol=3)


def test_crops_of_an_image_read_its_mask_once_and_own_their_labels(tmp_path, monkeypatch):
    read, paths = labelled_images.read_label_map, []
    monkeypatch.setattr(
        labelled_images,
        'read_label_map',
        lambda path, *a, **k: paths.append(path) or read(path, *a, **k),
    )
    images = street(tmp_path, count=2)
    crops = RandomCrops(images, per_image=3)
    labels = [crops[index].label_map for index in range(6)]
    assert paths == [mask for _, mask in images.pairs]
    labels[-1][:] = 0
    assert (crops[5].label_map > 0).any()


def test_crops_are_seeded_differ_and_stay_inside(tmp_path):
    images = street(tmp_path, count=2)
    crops = RandomCrops(images, per_image=6, scale=(0.25, 0.75))
    assert len(crops) == 12 and crops[7].img_path == images.pairs[1][0]
    sizes = {crops[i].label_map.shape for i in range(12)}
    assert len(sizes) > 3 and all(32 <= h == w <= 56 for h, w in sizes)
    again, other = RandomCrops(images, per_image=6), RandomCrops(images, per_image=6, seed=1)
    assert torch.equal(crops[3].image, again[3].image)
    assert not torch.equal(crops[3].image, other[3].image)


def test_subtracting_place_leaves_what_differs_there():
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(50, 2, 3, 4, generator=generator)
    at = 100 * torch.randn(1, 2, 3, 4, generator=generator)
    left = subtract_place(content + at, content + at)
    torch.testing.assert_close(left, content - content.mean(0), rtol=0, atol=1e-4)
    # Features that are nothing but place become exactly nothing, whatever rounding does.
    only = at.expand(50, -1, -1, -1) * 1.1
    assert not subtract_place(only, only).any()


def test_a_query_without_direction_takes_the_mean_of_the_memory():
    memory = PatchMemory(np.eye(4, 2) + 0.1, [[1, 0], [0, 1], [0, 1], [0, 1]])
    found = memory.classify(np.array([[0.0, 0.0], [1.0, 0.0]]), k=1, temperature=0.1)
    assert found.tolist() == [[0.25, 0.75], [1, 0]]


def test_place_solves_whole_images_and_nothing_once_it_is_removed(tmp_path):
    images = street(tmp_path)
    maps = dict(control_maps(vit(out_type='raw')), content=colour)
    published = dict(views='images', remove_place=False)
    whole = evaluate(maps, images, images, HEADS, **published)['knn']
    free = evaluate(maps, images, images, HEADS)
    assert whole['place']['mIoU'] > 50
    for head in HEADS:
        # One class everywhere: the share of the most frequent one.
        assert sum(value > 0 for value in free[head]['place']['IoU'].values()) == 1
        assert free[head]['content']['mIoU'] > free[head]['place']['mIoU'] + 15


def test_untrained_keeps_the_position_scale_and_the_global_generator():
    backbone = vit()
    with torch.no_grad():
        backbone.pos_embed.mul_(30)
    state = torch.random.get_rng_state()
    plain = untrained(backbone, seed=0)
    scaled = untrained(backbone, seed=0, scale_of_position=position_scale(backbone))
    assert torch.equal(state, torch.random.get_rng_state())
    assert position_scale(scaled) == pytest.approx(position_scale(backbone), rel=1e-5)
    assert position_scale(plain) == pytest.approx(0.02, rel=0.1)
    for (name, a), b in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        assert torch.equal(a, b) == (name != 'pos_embed')
    qkv = plain.layers[0].attn.qkv
    assert float(qkv.weight.detach().std()) == pytest.approx(0.02, rel=0.1) and not qkv.bias.any()
    assert plain.cls_token.any() and torch.equal(plain.ln1.weight, torch.ones(16))
    patch = plain.patch_embed.projection.weight
    assert not torch.equal(patch, backbone.patch_embed.projection.weight)
    assert not torch.equal(patch, untrained(backbone, seed=1).patch_embed.projection.weight)


def test_an_untrained_stem_of_convolutions_remembers_nothing():
    first, second = (vit(PretrainVisionTransformer, stem='convolutions') for _ in range(2))
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1)
    plain, again = (untrained(each, seed=0).state_dict() for each in (first, second))
    for name, value in plain.items():
        assert torch.equal(value, again[name]), name


def test_feature_maps_of_both_kinds_of_output_agree():
    images = torch.randn(2, 3, 32, 48)
    raw, featmap = vit(out_type='raw'), vit(out_type='featmap')
    with torch.no_grad():
        got = [feature_map_of(network)(images) for network in (raw, featmap)]
    assert got[0].shape == (2, 16, 4, 6) and torch.equal(*got)


def test_figures_stand_beside_the_best_control(tmp_path):
    images = street(tmp_path, count=3)
    backbone = vit(out_type='raw')
    backbone.train()
    result = evaluate_with_controls(backbone, images, images, HEADS, crops=2)
    assert backbone.training
    for head in HEADS:
        best = max(c['mIoU'] for c in result[head]['controls'].values())
        assert result[head]['gain'] == result[head]['mIoU'] - best
    constant = {h: {name: result[h]['controls'][name] for name in CONSTANT} for h in HEADS}
    again = evaluate_with_controls(backbone, images, images, HEADS, crops=2, known=constant)
    assert str(again) == str(result)  # NaN is not equal to itself
    told = {head: dict(place=dict(mIoU=101.0)) for head in HEADS}
    again = evaluate_with_controls(backbone, images, images, HEADS, crops=2, known=told)
    assert all(found['best_control'] == 'place' for found in again.values())  # taken as told
    made = dict(network=dict(mIoU=5.0), a=dict(mIoU=7.0), b=dict(mIoU=6.0))
    assert beside_controls(made)['best_control'] == 'a' and beside_controls(made)['gain'] == -2


@pytest.mark.parametrize(
    ('settings', 'message'), [(dict(views='whole'), "'whole'"), (dict(crops=0), 'per_image 0')]
)
def test_misuse_is_named(settings, message, tmp_path):
    images = street(tmp_path, count=1)
    with pytest.raises(ValueError, match=message):
        probe_patches(dict(colour=colour), images, images, **settings)
