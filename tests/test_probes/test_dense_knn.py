"""Dense nearest-neighbour segmentation: against a plain double loop, and on cases known by hand."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from s3pt_mm.cli import dense_knn as dense_knn_tool
from s3pt_mm.data.class_sets import NUIMAGES_13
from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.data.nuimages_masks import create_nuimages
from s3pt_mm.probes.confusion import confusion_matrix, scores
from s3pt_mm.probes.dense_knn import PatchMemory, largest_class
from s3pt_mm.probes.evaluation import evaluate, knn_head
from s3pt_mm.probes.patches import draw_memory, patch_label_histograms
from s3pt_mm.reports.segmentation_results import read_result


def segmented(memory, shares, grid, labels, *, k: int, classes: tuple[str, ...]) -> dict:
    """Figures of one image, as the probe forms them."""
    predict = knn_head(k=k)(torch.as_tensor(memory), np.asarray(shares))
    prediction = largest_class(predict(torch.as_tensor(grid)), labels.shape)
    return scores(confusion_matrix(prediction, labels, num_classes=len(classes)), classes)


def test_histograms_count_only_labelled_pixels():
    labels = np.array([[0, 0, 1, 255], [0, 1, 255, 255], [2, 2, 255, 255], [2, 2, 255, 255]])
    got = patch_label_histograms(labels, (2, 2), 3)
    expected = [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_allclose(got, expected)


def test_histograms_of_a_grid_that_does_not_divide_the_image():
    labels = np.random.default_rng(0).integers(0, 4, (11, 7))
    got = patch_label_histograms(labels, (3, 2), 4)
    for row in range(3):
        for column in range(2):
            cell = [
                labels[y, x]
                for y in range(11)
                for x in range(7)
                if y * 3 // 11 == row and x * 2 // 7 == column
            ]
            expected = np.bincount(cell, minlength=4) / len(cell)
            np.testing.assert_allclose(got[row * 2 + column], expected, rtol=1e-6)


def test_classify_equals_a_plain_loop():
    generator = np.random.default_rng(1)
    memory, queries = generator.normal(size=(40, 5)), generator.normal(size=(6, 5))
    shares = generator.dirichlet(np.ones(3), 40)
    got = PatchMemory(memory, shares).classify(queries, k=7, temperature=0.1)
    for query, row in zip(queries, got, strict=True):
        cosine = memory @ query / np.linalg.norm(memory, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosine)[:7]
        weight = np.exp(cosine[nearest] / 0.1)
        np.testing.assert_allclose(row, weight @ shares[nearest] / weight.sum(), rtol=1e-4)


def test_features_that_know_the_class_score_one_hundred():
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 4:], labels[0] = 1, 255
    one_hot = np.eye(2)[labels[::2, ::2].clip(0, 1)]
    one_hot[0] = np.eye(2)[labels[1, ::2]]
    shares = patch_label_histograms(labels, (4, 4), 2)
    result = segmented(one_hot.reshape(-1, 2), shares, one_hot, labels, k=3, classes=('a', 'b'))
    assert result['mIoU'] == result['aAcc'] == 100 and result['IoU'] == dict(a=100, b=100)


def test_absent_class_is_nan_and_outside_the_mean():
    labels = np.zeros((4, 4), np.uint8)
    grid = np.ones((2, 2, 2))
    result = segmented(np.ones((1, 2)), [[1, 0, 0]], grid, labels, k=1, classes=('0', '1', '2'))
    assert result['mIoU'] == 100 and np.isnan(result['IoU']['2'])


def test_unlabelled_patches_never_enter_the_memory():
    features = torch.arange(8.0).reshape(1, 2, 2, 2)
    labels = [np.array([[0, 255], [255, 1]])]
    memory, shares = draw_memory(features, labels, num_classes=2, memory_size=None)
    assert memory.tolist() == [[0, 1], [6, 7]] and shares.tolist() == [[1, 0], [0, 1]]
    assert len(PatchMemory(np.ones((3, 2)), [[1, 0], [0, 0], [0, 1]])) == 2


def test_draw_is_seeded_and_bounded():
    features, labels = torch.randn(3, 4, 4, 2), [np.zeros((8, 8))] * 3

    def draw(seed):
        return draw_memory(features, labels, num_classes=1, memory_size=10, seed=seed)[0]

    assert (
        len(draw(0)) == 10 and torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    )


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(shares=np.zeros((4, 2))), 'labelled'),
        (dict(shares=np.ones((3, 2))), '4 memory features, but 3'),
        (dict(memory=np.full((4, 2), np.nan)), 'not finite'),
        (dict(labels=np.full((4, 4), 7)), '7, outside 0..1'),
        (dict(k=0), 'k is 0'),
    ],
)
def test_misuse_is_named(change, message):
    call = dict(
        memory=np.ones((4, 2)),
        shares=np.ones((4, 2)),
        grid=np.ones((2, 2, 2)),
        labels=np.zeros((4, 4)),
        k=1,
        classes=('a', 'b'),
    )
    with pytest.raises(ValueError, match=message):
        segmented(**{**call, **change})


def test_from_files_to_miou(tmp_path):
    """Colour predicts the class here, so features that are mean colours segment almost
    perfectly."""
    generator = np.random.default_rng(0)
    pairs = []
    for number in range(4):
        raw = np.zeros((32, 48), np.uint8)
        x = int(generator.integers(1, 5)) * 8
        raw[:, :x], raw[:8, x:] = 24, 255
        image = np.full((32, 48, 3), (10, 200, 10), np.uint8)
        image[:, :x] = (200, 10, 10)
        Image.fromarray(image).save(tmp_path / f'{number}.png')
        Image.fromarray(raw).save(tmp_path / f'{number}_mask.png')
        pairs.append((tmp_path / f'{number}.png', tmp_path / f'{number}_mask.png'))
    images = LabelledImages(pairs, class_set='nuimages13', image_size=(32, 48))
    first = images[0]
    assert first.image.shape == (3, 32, 48) and set(np.unique(first.label_map)) == {10, 12, 255}
    result = evaluate(
        dict(colour=lambda x: torch.nn.functional.avg_pool2d(x, 8)),
        images,
        images,
        dict(knn=knn_head(k=3)),
        memory_size=50,
        views='images',
        remove_place=False,
    )['knn']['colour']
    assert result['mIoU'] > 99 and result['memory_size'] == 50
    assert result['IoU']['driveable surface'] > 99 and len(result['IoU']) == len(
        NUIMAGES_13.classes
    )


def test_build_reads_cityscapes_folders_and_nuimages_lists(tmp_path):
    for split in ('leftImg8bit', 'gtFine'):
        (tmp_path / split / 'val' / 'town').mkdir(parents=True)
    picture = Image.fromarray(np.zeros((16, 32, 3), np.uint8))
    picture.save(tmp_path / 'leftImg8bit/val/town/a_leftImg8bit.png')
    labels = np.full((16, 32), 13, np.uint8)
    Image.fromarray(labels).save(tmp_path / 'gtFine/val/town/a_gtFine_labelTrainIds.png')
    images = LabelledImages.build(root=tmp_path, split='val', image_size=(16, 32))
    assert images.class_set.name == 'cityscapes19' and set(images[0].label_map.flat) == {13}
    with pytest.raises(FileNotFoundError, match='absent.json'):
        LabelledImages.build(ann_file=tmp_path / 'absent.json', image_size=(16, 32))


def test_the_tool_writes_and_prints_its_figures(nuimages_root, tmp_path, capsys):
    lists = create_nuimages(nuimages_root, progress=False)
    parser = argparse.ArgumentParser()
    dense_knn_tool.add_arguments(parser)
    command = ['random', '--arch', 'vitt', '--train', str(lists['train']), '--val']
    command += [str(lists['val']), '--image-size', '32', '64', '--out', str(tmp_path / 'knn')]
    result = dense_knn_tool.run(parser.parse_args([*command, '--memory-size', '30']))
    assert result['memory_size'] == 30 and 0 <= result['mIoU'] < 100
    content = json.loads((tmp_path / 'knn.json').read_text())
    assert content['mIoU'] == result['mIoU'] and content['settings']['k'] == 30
    printed = capsys.readouterr().out
    assert f'{result["mIoU"]:.2f}' in printed and '30 patches in memory' in printed
    controls = ['random', 'place', 'colour + place', 'untrained, same position scale']
    assert list(content['controls']) == controls
    for name in controls:
        assert name in printed and f'{content["controls"][name]["mIoU"]:.2f}' in printed
    best = content['controls'][content['best_control']]['mIoU']
    assert best == max(found['mIoU'] for found in content['controls'].values())
    assert content['gain'] == pytest.approx(content['mIoU'] - best)
    assert f'{result["mIoU"]:.2f}' in (tmp_path / 'knn.md').read_text()
    # The same file serves the figures.
    assert read_result('knn', tmp_path / 'knn.json').miou == result['mIoU']
    linear = dense_knn_tool.run(parser.parse_args([*command, '--linear']))
    assert linear['IoU'].keys() == result['IoU'].keys() and 0 <= linear['mIoU'] < 100
    assert 'Linear head of random' in (tmp_path / 'knn.md').read_text()
    with pytest.raises(SystemExit, match='no multiple of the patch, 16'):
        dense_knn_tool.run(parser.parse_args([*command, '--image-size', '30', '64']))


def test_imports_without_mmseg_and_mmdet3d():
    code = (
        'import sys; sys.modules["mmseg"] = sys.modules["mmdet3d"] = None; '
        'import s3pt_mm.probes.evaluation; assert "mmpretrain" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
