"""Loss of stripes against PyTorch's loss of the whole enlarged map."""

import pytest
import torch
import torch.nn.functional as F

from s3pt_mm.segmentation import upsampled_loss
from s3pt_mm.segmentation.upsampled_loss import upsampled_cross_entropy


def plain(scores, label, align_corners=False):
    enlarged = F.interpolate(
        scores, size=label.shape[1:], mode='bilinear', align_corners=align_corners
    )
    loss = F.cross_entropy(enlarged, label, reduction='sum', ignore_index=255)
    return loss, (enlarged.argmax(1) == label).sum()


def labels(*shape, classes=4):
    label = torch.randint(0, classes, shape)
    label[:, : shape[1] // 4] = 255
    return label


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [(150, 70), (64, 9), (5, 7), (3, 4)])
def test_value_hits_and_gradient(size, align_corners):
    """Several stripes, a last one that is not full, one stripe, the patch grid itself, smaller."""
    scores, label = 5 * torch.randn(2, 4, 5, 7), labels(2, *size)
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss, hits = upsampled_cross_entropy(ours, label, 255, align_corners)
    expected, expected_hits = plain(theirs, label, align_corners)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    assert hits == expected_hits > 0
    # A loss weight and a mean reach the gradient.
    (0.3 * loss / label.numel()).backward()
    (0.3 * expected / label.numel()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


def test_gradcheck(monkeypatch):
    monkeypatch.setattr(upsampled_loss, 'STRIPE', 5)
    scores = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    label = labels(1, 12, 11, classes=3)
    assert torch.autograd.gradcheck(lambda s: upsampled_cross_entropy(s, label, 255)[0], (scores,))


def test_large_scores_stay_finite_and_nothing_labelled_is_zero():
    scores = (1e4 * torch.randn(1, 3, 4, 4)).requires_grad_()
    label = torch.randint(0, 3, (1, 32, 32))
    loss, _ = upsampled_cross_entropy(scores, label, 255)
    torch.testing.assert_close(loss, plain(scores, label)[0])
    loss.backward()
    assert scores.grad.isfinite().all()
    scores.grad = None
    loss, hits = upsampled_cross_entropy(scores, torch.full_like(label, 255), 255)
    loss.backward()
    assert loss == 0 and hits == 0 and not scores.grad.any()


def test_no_full_resolution_map_is_kept():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        upsampled_cross_entropy(torch.randn(1, 4, 4, 4, requires_grad=True), labels(1, 64, 64), 255)
    assert saved == [4 * 4 * 4]


def test_under_autocast_scores_are_rounded_and_sums_are_not():
    scores, label = (5 * torch.randn(2, 4, 5, 7)).bfloat16(), labels(2, 64, 9)
    exact = upsampled_cross_entropy(scores.float(), label, 255, False)
    ours = scores.clone().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        loss, hits = upsampled_cross_entropy(ours, label, 255, False)
    loss.backward()
    assert torch.equal(loss, exact[0]) and hits == exact[1] and ours.grad.dtype == torch.bfloat16
