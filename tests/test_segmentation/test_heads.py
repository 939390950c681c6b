"""Our heads against mmseg's: same names, scores, losses and gradients; only the waste is gone."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.losses import accuracy
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import s3pt_mm.segmentation  # noqa: F401
from s3pt_mm.segmentation.heads import pixel_accuracy

COMMON = dict(
    in_channels=24,
    channels=24,
    num_classes=5,
    dropout_ratio=0.0,
    loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
)
PAIRS = {
    'LinearSegHead': dict(type='FCNHead', num_convs=0, concat_input=False),
    'MaskTransformerSegHead': dict(
        type='SegmenterMaskTransformerHead', num_layers=2, num_heads=3, embed_dims=24
    ),
}


def pair(name, **loss):
    common = dict(COMMON, loss_decode=dict(COMMON['loss_decode'], **loss))
    stock = MODELS.build(dict(common, **PAIRS[name]))
    ours = MODELS.build(dict(common, **dict(PAIRS[name], type=name)))
    stock.init_weights()
    for parameter in stock.parameters():  # zero biases would hide a misplaced one
        torch.nn.init.normal_(parameter, std=0.2)
    ours.load_state_dict(stock.state_dict(), strict=True)
    return stock.eval(), ours.eval()


@pytest.mark.parametrize('name', PAIRS)
@pytest.mark.parametrize(
    'loss',
    [
        {},  # by stripes, as the configs have it
        dict(avg_non_ignore=True, loss_weight=0.4),
        dict(use_sigmoid=True),  # as mmseg forms it
    ],
    ids=str,
)
def test_scores_losses_and_gradients_equal_mmseg(name, loss):
    stock, ours = pair(name, **loss)
    features = (torch.randn(2, 24, 4, 6),)
    labels = torch.randint(0, 5, (2, 1, 32, 48))
    labels[0, 0, :9] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    torch.testing.assert_close(ours(features), stock(features), rtol=1e-4, atol=1e-5)
    expected, got = stock.loss(features, samples, None), ours.loss(features, samples, None)
    assert expected.keys() == got.keys()
    for key in expected:
        torch.testing.assert_close(got[key], expected[key], rtol=1e-4, atol=1e-4)
    expected['loss_ce'].backward()
    got['loss_ce'].backward()
    gradients = dict(stock.named_parameters())
    for key, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key].grad, rtol=1e-3, atol=1e-5)


def test_mask_head_differs_when_attention_changes():
    _, ours = pair('MaskTransformerSegHead')
    features = (torch.randn(1, 24, 4, 4),)
    before = ours(features)
    with torch.no_grad():
        ours.layers[1].attn.attn.in_proj_weight[:24] += 0.5  # the queries of the last layer
    assert (ours(features) - before).abs().max() > 1e-3


def test_attention_weights_are_never_written_out():
    """No tensor saved for backward has (tokens x tokens) elements a head, as mmcv's has."""
    stock, ours = pair('MaskTransformerSegHead')
    features = (torch.randn(1, 24, 20, 20),)

    def largest(head):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            head(features)
        return max(sizes)

    tokens = 20 * 20 + 5
    assert largest(stock) >= 3 * tokens * tokens > largest(ours)


def test_accuracy_equals_mmsegs_and_survives_all_ignored():
    scores, labels = torch.randn(2, 5, 8, 8), torch.randint(0, 5, (2, 8, 8))
    labels[:, :3] = 255
    torch.testing.assert_close(
        pixel_accuracy(scores, labels, 255), accuracy(scores, labels, ignore_index=255)
    )
    assert pixel_accuracy(scores, torch.full_like(labels, 255), 255).item() == 0
