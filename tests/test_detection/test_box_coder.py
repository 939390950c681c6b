from __future__ import annotations

import math

import pytest
import torch

from s3pt_mm.detection.petr.box_coder import S3PTNMSFreeCoder, decode_boxes, encode_boxes


def random_boxes(count: int) -> torch.Tensor:
    low = torch.tensor([-50.0, -50, -3, 0.2, 0.2, 0.2, -math.pi, -9, -9])
    high = torch.tensor([50.0, 50, 3, 12, 4, 4, math.pi, 9, 9])
    return low + (high - low) * torch.rand(count, 9)


def test_round_trip() -> None:
    boxes = random_boxes(200)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes)), boxes, atol=1e-4, rtol=1e-4)


def test_yaw_of_a_known_box() -> None:
    # Heading along +x: the old yaw is -pi / 2, its sine -1.
    code = encode_boxes(torch.tensor([1.0, 2, 3, 4, 5, 6, 0, 7, 8]))
    expected = [1, 2, math.log(4), math.log(5), 3, math.log(6), -1, 0, 7, 8]
    torch.testing.assert_close(code, torch.tensor(expected), atol=1e-6, rtol=0)


def test_angle_ignores_the_norm_of_sine_and_cosine() -> None:
    boxes = random_boxes(20)
    codes = encode_boxes(boxes)
    codes[:, 6:8] *= 3
    torch.testing.assert_close(decode_boxes(codes)[:, 6], boxes[:, 6], atol=1e-4, rtol=1e-4)


def test_boxes_without_velocity_are_refused() -> None:
    with pytest.raises(ValueError, match='velocity'):
        encode_boxes(torch.rand(3, 7))


def test_decode_keeps_the_best_inside_the_range() -> None:
    coder = S3PTNMSFreeCoder(
        post_center_range=(-10, -10, -5, 10, 10, 5), max_num=3, score_threshold=0.5
    )
    boxes = random_boxes(4)
    boxes[:, :3] = torch.tensor([[0.0, 0, 0], [20, 0, 0], [1, 1, 1], [2, 2, 2]])
    logits = torch.full((4, 2), -5.0)
    logits[0, 1], logits[1, 0], logits[2, 1], logits[3, 0] = 1.0, 3.0, 2.0, 0.5
    found, scores, labels = coder.decode(logits, encode_boxes(boxes))
    torch.testing.assert_close(found[:, :3], boxes[[2, 0], :3], atol=1e-5, rtol=0)
    assert labels.tolist() == [1, 1]
    torch.testing.assert_close(scores, torch.tensor([2.0, 1.0]).sigmoid())


def test_more_wanted_than_there_are() -> None:
    coder = S3PTNMSFreeCoder(post_center_range=(-99, -99, -99, 99, 99, 99), max_num=300)
    assert len(coder.decode(torch.randn(5, 2), encode_boxes(random_boxes(5)))[0]) == 10
