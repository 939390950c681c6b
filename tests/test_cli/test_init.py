"""``s3pt-train CONFIG --init FILE``, whole: each method from another public layout, and misfits."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from s3pt_mm.cli.train import main
from tests.nuscenes_tables import write_jpeg

TINY = dict(embed_dim=48, depth=2, num_heads=3)


def public(kind: str, path: Path) -> dict[str, Tensor]:
    """A file as DINO, DINOv2 or timm publish theirs; its weights in timm's names."""
    name, patch = dict(
        dino=('vit_small_patch16_224', 16),
        dinov2=('vit_small_patch14_reg4_dinov2', 14),
        timm=('vit_small_patch16_dinov3', 16),
    )[kind]
    width = TINY | (dict(embed_dim=32, num_heads=2) if kind == 'timm' else {})
    model = timm.create_model(name, num_classes=0, img_size=4 * patch, **width)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if kind == 'dino':
        entries = {f'module.backbone.{name}': tensor for name, tensor in state.items()}
        heads = {'module.head.mlp.0.weight': torch.zeros(3, 48)}
        torch.save({'teacher': entries | heads, 'student': entries, 'epoch': 9}, path)
    elif kind == 'dinov2':
        published = dict(state)
        published['register_tokens'] = published.pop('reg_token')
        place = torch.randn_like(state['cls_token'])
        published['cls_token'] = state['cls_token'] - place
        published['pos_embed'] = torch.cat([place, state['pos_embed']], 1)
        published['mask_token'] = torch.zeros(1, 48)
        torch.save(published, path)
    else:
        torch.save({'state_dict': state}, path)
    return state


BACKBONES = dict(
    dino='dict(_delete_=True, type="S3PTVisionTransformer", img_size=64, patch_size=16, '
    'out_type="raw", arch=dict(embed_dims=48, num_layers=2, num_heads=3, '
    'feedforward_channels=192))',
    dinov2='dict(_delete_=True, type="TimmViT", name="vit_small_patch14_reg4_dinov2", img_size=56, '
    'embed_dim=48, depth=2, num_heads=3, out_type="raw")',
    timm='dict(_delete_=True, type="TimmViT", name="vit_small_patch16_dinov3", img_size=64, '
    'embed_dim=32, depth=2, num_heads=2, out_type="raw")',
)
CONFIG = """
_base_ = [{base!r}]
model = dict(
    backbone={backbone},
    head=dict(num_prototypes=16, hidden_channels=16, bottleneck_channels=8),
    {memory}
)
train_pipeline = _base_.train_pipeline
for step in train_pipeline:
    if step['type'] == 'TwoViews':
        step['size'] = {size}
    if step['type'] == 'MultiCropViews':
        step.update(size={size}, num_local=2, local_size={local})
    if step['type'] == 'TokenGeometry':
        step['patch_size'] = {patch}
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root={data!r}, pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=2)
param_scheduler = []
optim_wrapper = dict(
    optimizer=dict(lr={rate}), paramwise_cfg=dict(layer_decay_rate={decay}))
epochs = 1
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture
def run(repository, tmp_path, capsys):
    """Two steps of a method through the command line; what the checkpoint holds."""
    for index in range(4):
        write_jpeg(tmp_path / 'photos' / f'{index}.jpg', index, width=160, height=120)

    def train(method: str, backbone: str, *options: str, rate: float, decay: float = 1.0) -> dict:
        patch = 14 if backbone == 'dinov2' else 16
        memory = '' if method == 'dino' else 'clustering=dict(num_clusters=4), queue_images=4,'
        config = tmp_path / f'{method}.py'
        config.write_text(
            CONFIG.format(
                base=str(repository / f'configs/{method}/vits16_image_folder.py'),
                backbone=BACKBONES[backbone],
                memory=memory,
                size=4 * patch,
                local=2 * patch,
                patch=patch,
                data=str(tmp_path / 'photos'),
                rate=rate,
                decay=decay,
            )
        )
        work = tmp_path / 'work'
        main([str(config), '--work-dir', str(work), *options])
        return torch.load(work / 'epoch_1.pth', weights_only=True)

    return train


@pytest.mark.parametrize(
    ('method', 'kind'), [('s3pt', 'dinov2'), ('cribo', 'dino'), ('dino', 'timm')]
)
def test_both_networks_start_as_the_file(run, tmp_path, method, kind):
    """At rate 0 nothing moves: both networks of the checkpoint are the file's, to the bit."""
    expected = public(kind, tmp_path / 'public.pth')
    found = run(method, kind, '--init', str(tmp_path / 'public.pth'), rate=0.0)['state_dict']
    for network in ('student', 'teacher'):
        prefix = f'{network}.backbone.'
        own = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
        assert len(own) == len(expected)
        if kind == 'dino':  # mmpretrain's names
            assert torch.equal(
                own['layers.1.attn.qkv.weight'], expected['blocks.1.attn.qkv.weight']
            )
            assert torch.equal(own['pos_embed'], expected['pos_embed'])
            continue
        for name, tensor in expected.items():
            torch.testing.assert_close(own[f'model.{name}'], tensor, rtol=0, atol=1e-6, msg=name)


def test_a_continued_run_learns_slower_below(run, tmp_path):
    """Layer decay: what a first step of Adam moves is the layer's rate."""
    before = public('dinov2', tmp_path / 'public.pth')
    found = run(
        'cribo', 'dinov2', '--init', str(tmp_path / 'public.pth'), rate=1e-3, decay=0.1,
    )['state_dict']  # fmt: skip
    moved = {
        name: (found[f'student.backbone.model.{name}'] - before[name]).abs().max().item()
        for name in ('patch_embed.proj.weight', 'blocks.0.mlp.fc1.weight', 'norm.weight')
    }
    first, block, last = moved.values()
    assert 0 < first < 0.3 * block and block < 0.3 * last, moved


@pytest.mark.parametrize(
    ('backbone', 'file', 'message'),
    [
        ('dinov2', 'dino', 'has patches of (16, 16) pixels, the backbone of (14, 14)'),
        ('timm', 'dinov2', 'has patches of (14, 14) pixels, the backbone of (16, 16)'),
        ('dino', 'dinov2', 'not a plain ViT in the layout of timm'),
        ('dino', 'absent', 'absent.pth'),
    ],
)
def test_misfits_are_one_line_before_training(run, tmp_path, backbone, file, message):
    if file != 'absent':
        public(file, tmp_path / f'{file}.pth')
    with pytest.raises(SystemExit) as stopped:
        run('cribo', backbone, '--init', str(tmp_path / f'{file}.pth'), rate=1e-3)
    text = str(stopped.value)
    assert text.startswith('s3pt-train: ') and message in text and '\n' not in text, text
    assert not (tmp_path / 'work/init.pth').exists()
