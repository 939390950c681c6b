"""Frozen means frozen: gradients, drop path, bytes, activations; and a checkpoint fits or is an
error."""

import pytest
import torch
from mmpretrain.models.backbones import VisionTransformer
from torch import nn

from s3pt_mm.common.models import CheckpointMismatchError
from s3pt_mm.weights.frozen import FrozenVisionTransformer

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
SETTINGS = dict(arch=ARCH, patch_size=16, out_type='featmap')


def bytes_of(module: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


def frozen(
    checkpoint: object = None, prefix: str = 'teacher.backbone.', **settings: object
) -> FrozenVisionTransformer:
    torch.manual_seed(0)
    return FrozenVisionTransformer(
        **{**SETTINGS, 'img_size': 64, 'drop_path_rate': 0.9, **settings},
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix=prefix),
    )


@pytest.fixture
def teacher() -> VisionTransformer:
    torch.manual_seed(1)
    model = VisionTransformer(**SETTINGS, img_size=64)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def checkpoint(teacher, tmp_path):
    path = tmp_path / 'pretrained.pth'
    state = {f'teacher.backbone.{name}': value for name, value in teacher.state_dict().items()}
    state |= {f'student.backbone.{name}': value + 1 for name, value in teacher.state_dict().items()}
    torch.save(dict(state_dict=state), path)
    return path


def test_training_a_head_changes_no_byte_of_the_backbone(checkpoint):
    model = nn.Sequential()
    model.backbone, model.head = frozen(str(checkpoint)), nn.Conv2d(32, 3, 1)
    model.backbone.init_weights()
    before, head_before = bytes_of(model.backbone), bytes_of(model.head)
    # Everything goes into the optimiser, as mmengine does it; weight decay must not reach frozen
    # weights either.
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        model.train()
        features = model.backbone(torch.randn(2, 3, 64, 64))[0]
        assert features.grad_fn is None and not features.is_inference()
        model.head(features).square().mean().backward()
        optimiser.step()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert bytes_of(model.backbone) == before
    assert bytes_of(model.head) != head_before


def test_drop_path_stays_off_after_train(checkpoint, teacher):
    model = frozen(str(checkpoint))
    model.init_weights()
    nn.ModuleList([model]).train()
    assert not any(module.training for module in model.modules())
    images = torch.randn(2, 3, 64, 64)
    teacher.eval()
    torch.testing.assert_close(model(images)[0], teacher(images)[0])


def test_no_activation_is_saved_for_backward(checkpoint):
    model = frozen(str(checkpoint))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor
    ):
        model(torch.randn(1, 3, 64, 64, requires_grad=True))
    assert not saved


def test_bfloat16_gives_float32_features_close_to_float32(checkpoint):
    images = torch.randn(1, 3, 64, 64)
    full, half = frozen(str(checkpoint)), frozen(str(checkpoint), inference_dtype='bfloat16')
    full.init_weights(), half.init_weights()
    expected, got = full(images)[0], half(images)[0]
    assert got.dtype == torch.float32 and not torch.equal(got, expected)
    assert torch.nn.functional.cosine_similarity(got, expected, dim=1).min() > 0.99
    with pytest.raises(ValueError, match='int8'):
        frozen(str(checkpoint), inference_dtype='int8')


def test_position_embedding_is_resized_to_another_grid(checkpoint, teacher):
    model = frozen(str(checkpoint), img_size=(96, 160))
    model.init_weights()
    assert model.pos_embed.shape == (1, 1 + 6 * 10, 32)
    torch.testing.assert_close(model.pos_embed[:, :1], teacher.pos_embed[:, :1].detach())
    assert model(torch.randn(1, 3, 96, 160))[0].shape == (1, 32, 6, 10)


def test_student_and_teacher_are_told_apart_by_prefix(checkpoint, teacher):
    model = frozen(str(checkpoint), prefix='student.backbone')
    model.init_weights()
    torch.testing.assert_close(model.cls_token, teacher.cls_token.detach() + 1)


@pytest.mark.parametrize('named', [None, ''])
def test_no_checkpoint_names_the_remedy(named):
    with pytest.raises(ValueError, match=r'--cfg-options model.backbone.init_cfg.checkpoint=PATH'):
        frozen(named).init_weights()


def test_absent_file_is_named():
    with pytest.raises(FileNotFoundError, match=r'nowhere/at_all.pth.*--cfg-options'):
        frozen('nowhere/at_all.pth').init_weights()


def test_random_only_when_asked_for():
    model = frozen('random')
    model.init_weights()
    assert model.pos_embed.abs().sum() > 0 and model.init_cfg['checkpoint'] == 'random'
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_wrong_prefix_lists_what_there_is(checkpoint):
    with pytest.raises(
        CheckpointMismatchError, match=r"'backbone.'.*student.backbone., teacher.backbone."
    ):
        frozen(str(checkpoint), prefix='backbone.').init_weights()


def test_mismatches_are_all_listed_and_nothing_is_loaded(checkpoint):
    content = torch.load(checkpoint)
    state = content['state_dict']
    del state['teacher.backbone.cls_token']
    state['teacher.backbone.mask_token'] = torch.zeros(1)
    state['teacher.backbone.ln1.weight'] = torch.zeros(7)
    state['teacher.backbone.ln1.bias'] = torch.full((32,), float('nan'))
    torch.save(content, checkpoint)
    model = frozen(str(checkpoint))
    before = bytes_of(model)
    with pytest.raises(CheckpointMismatchError) as error:
        model.init_weights()
    for part in (
        'cls_token is absent in the file',
        'mask_token is unknown to the model',
        'ln1.weight is (7,) in the file and (32,) in the model',
        'ln1.bias is not finite',
    ):
        assert part in str(error.value)
    assert bytes_of(model) == before


def test_another_architecture_is_refused(checkpoint):
    with pytest.raises(CheckpointMismatchError, match=r'layers.2\S* is absent in the file'):
        frozen(str(checkpoint), arch={**ARCH, 'num_layers': 3}).init_weights()


def test_a_file_with_code_in_it_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / 'pwned'), 'w'))

    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': {'teacher.backbone.cls_token': Evil()}}, path)
    with pytest.raises(Exception, match='refused'):
        frozen(str(path)).init_weights()
    assert not (tmp_path / 'pwned').exists()


def test_unfrozen_it_trains_from_the_same_weights(checkpoint, teacher):
    model = frozen(str(checkpoint), freeze=False, drop_path_rate=0.0)
    model.init_weights()
    images = torch.randn(2, 3, 64, 64)
    teacher.eval()
    features = model.train()(images)[0]
    torch.testing.assert_close(features, teacher(images)[0])
    features.square().mean().backward()
    assert model.training and all(p.grad is not None for p in model.parameters())
