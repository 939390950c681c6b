"""Start a backbone from trained weights, all of them or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.common.reading import read_checkpoint


def load_backbone(backbone: nn.Module, init_cfg: Mapping[str, Any]) -> None:
    """Fill a backbone as ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)`` says.

    mmengine's initialiser warns about names that do not fit and goes on: of DINO's own file 12 of
    30 tensors loaded and 18 stayed random. A position embedding of another length is resized by
    mmpretrain's ViT itself.

    Raises:
        ConfigError: names or shapes differ; the message names the file, both sides and the
            converter.
    """
    path, prefix = init_cfg['checkpoint'], init_cfg.get('prefix') or ''
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    content = read_checkpoint(path)
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    state = {
        name.removeprefix(prefix): value
        for name, value in content.items()
        if name.startswith(prefix)
    }
    own = backbone.state_dict()
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    problem = ''
    if missing:
        problem = f'{len(missing)} of {len(own)} weights are absent, e.g. {missing[0]}'
    elif unknown:
        problem = f'{len(unknown)} weights are unknown to the backbone, e.g. {unknown[0]}'
    else:
        try:
            backbone.load_state_dict(state, strict=True)
        except RuntimeError as error:
            problem = str(error).splitlines()[-1].strip()
    if problem:
        names = ', '.join(list(content)[:3])
        raise ConfigError(
            f'model.backbone.init_cfg.checkpoint={path}, prefix {prefix!r}: {problem}; the file '
            f'has {names}, ... Weights of DINO, timm, Hugging Face and others: '
            f's3pt-convert {path} backbone.pth first; a checkpoint of this package: '
            "init_cfg.prefix='teacher.backbone.'"
        )
