"""Which parameters are decayed, and clipping tensor by tensor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from s3pt_mm.method.param_groups import PretrainOptimConstructor, clip_each_tensor
from tests.test_reliability.rank_training import tiny_model


def build(model: nn.Module, lr: float = 0.1, **paramwise: object):  # noqa: ANN201
    optimizer = dict(type='AdamW', lr=lr, weight_decay=0.04)
    cfg = dict(optimizer=optimizer, clip_grad=dict(max_norm=0.3))
    return PretrainOptimConstructor(cfg, paramwise)(model)


def gradients(shapes: list[tuple[int, ...]]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for scale, parameter in zip((1e-3, 1.0, 50.0, 0.0), parameters, strict=True):
        parameter.grad = scale * torch.randn(parameter.shape)
    return parameters


@pytest.mark.parametrize('algorithm', ['S3PTDINO', 'CrIBo', 'S3PT'])
def test_groups_are_dinos(algorithm: str) -> None:
    """Two-dimensional and more is decayed, class token and gains included; the teacher is out."""
    model = tiny_model(algorithm)
    decayed, free = build(model).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [{names[id(p)] for p in group['params']} for group in (decayed, free)]
    assert decayed['weight_decay'] == 0.04 and free['weight_decay'] == 0.0
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {n for n in names.values() if n.startswith('student.')}
    backbone, head = 'student.backbone.', 'student.head.'
    assert {
        f'{backbone}cls_token',
        f'{backbone}pos_embed',
        f'{backbone}patch_embed.projection.weight',
        f'{backbone}layers.0.attn.qkv.weight',
        f'{head}mlp.0.weight',
        f'{head}image_prototypes.weight_v',
        f'{head}image_prototypes.weight_g',
    } <= groups[0]
    assert {name for name in groups[1] if name.endswith('.bias')} == {
        name for name in names.values() if name.startswith('student.') and name.endswith('.bias')
    }
    assert {f'{backbone}layers.0.ln1.weight', f'{backbone}ln1.weight'} <= groups[1]


def test_held_gains_are_left_out() -> None:
    """Unit-norm prototypes have no gradient: nothing may decay them."""
    model = tiny_model('CrIBo', head=dict(unit_norm_prototypes=True))
    held = {id(layer.weight_g) for layer in model.student['head'].prototype_layers()}
    groups = build(model).optimizer.param_groups
    assert len(held) == 2
    assert not held & {id(p) for group in groups for p in group['params']}


def test_each_tensor_is_clipped_by_itself() -> None:
    parameters = gradients([(4, 5), (7,), (3, 2, 2), (6,)])
    wanted = [p.grad.clone() for p in parameters]
    for gradient in wanted:  # DINO's public rule
        factor = 0.3 / (gradient.norm() + 1e-6)
        if factor < 1:
            gradient.mul_(factor)
    largest = max(float(p.grad.norm()) for p in parameters)
    assert float(clip_each_tensor(parameters, 0.3)) == pytest.approx(largest)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert not parameters[3].grad.any()  # a zero gradient stays one


@pytest.mark.parametrize('clip', ['each_tensor', 'global'])
def test_the_wrapper_clips_as_it_is_told(clip: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    wrapper = build(model, lr=0.0, clip=clip)
    seen: list[Tensor] = []
    wrapper.optimizer.step = lambda *args: seen.extend(p.grad.clone() for p in model.parameters())
    loss = 100 * model(torch.randn(8, 3)).square().mean()
    wrapper.update_params(loss)
    norms = torch.stack([gradient.norm() for gradient in seen])
    if clip == 'each_tensor':
        torch.testing.assert_close(norms, torch.full_like(norms, 0.3))
    else:
        assert float(norms.norm()) == pytest.approx(0.3, rel=1e-4)


def test_decay_moves_only_what_is_decayed() -> None:
    """With gradients of zero, AdamW's step is the decay alone."""
    model = tiny_model('S3PT')
    wrapper = build(model)
    for parameter in model.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: p.clone() for name, p in model.student.named_parameters()}
    wrapper.optimizer.step()
    for name, parameter in model.student.named_parameters():
        factor = 1 - 0.1 * 0.04 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter, factor * before[name], msg=name)


def test_custom_keys_have_their_own_rate() -> None:
    """Of several keys in a name the longest counts; what has none keeps the base rate."""
    model = tiny_model('S3PT')
    keys = {'backbone.pos_embed': dict(lr_mult=10.0), 'embed': dict(lr_mult=0.5)}
    groups = build(model, custom_keys=keys).optimizer.param_groups
    rates = {id(p): (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
    found = {name: rates.pop(id(p)) for name, p in model.student.named_parameters()}
    assert not rates and len(groups) == 5
    special = {name: value for name, value in found.items() if 'embed' in name}
    assert special == {
        'backbone.pos_embed': (1.0, 0.04),
        'backbone.patch_embed.projection.weight': (0.05, 0.04),
        'backbone.patch_embed.projection.bias': (0.05, 0.0),
    }
    assert {found[name] for name in found.keys() - special} == {(0.1, 0.04), (0.1, 0.0)}


def test_errors_name_the_option() -> None:
    with pytest.raises(ValueError, match="clip must be 'global' or 'each_tensor', got 'all'"):
        build(nn.Linear(2, 2), clip='all')
    with pytest.raises(ValueError, match='does not know.*norm_decay_mult'):
        build(nn.Linear(2, 2), norm_decay_mult=0.0)
    with pytest.raises(ValueError, match="custom_keys.'weight'. must be dict.lr_mult"):
        build(nn.Linear(2, 2), custom_keys=dict(weight=dict(decay_mult=0.0)))
    with pytest.raises(ValueError, match="no trained parameter has 'pos_embed' in its name"):
        build(nn.Linear(2, 2), custom_keys=dict(pos_embed=dict(lr_mult=2.0)))


def test_layers_learn_the_slower_the_earlier() -> None:
    """Heads and the last norm at the base rate, each block at 0.5 of the next, embeddings last."""
    model = tiny_model('S3PTDINO')
    rates = {
        id(parameter): group.get('lr')
        for group in build(model, layer_decay_rate=0.5).optimizer.param_groups
        for parameter in group['params']
    }
    names = {n: rates[id(p)] for n, p in model.named_parameters() if p.requires_grad}
    depth = len(model.student['backbone'].layers)
    assert names['student.head.mlp.0.weight'] == names['student.backbone.ln1.weight'] == 0.1
    for layer in range(depth):
        wanted = pytest.approx(0.1 * 0.5 ** (depth - layer))
        assert names[f'student.backbone.layers.{layer}.attn.qkv.weight'] == wanted
    assert names['student.backbone.pos_embed'] == pytest.approx(0.1 * 0.5 ** (depth + 1))
    with pytest.raises(ValueError, match='no backbone here counts'):
        build(nn.Linear(2, 2), layer_decay_rate=0.5)
