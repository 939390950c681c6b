"""What a pre-training run leaves behind for everybody else: the teacher's ViT, and how to feed it.

``epoch_3.backbone.safetensors`` lies beside ``epoch_3.pth``. Its names are timm's (and DINO's); its
metadata hold two JSON texts, ``architecture`` and ``preprocessing``. docs/checkpoints.md shows how
timm, transformers and mmpretrain read it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from s3pt_mm.common.models import unwrap
from s3pt_mm.weights.convert import dimensions, from_backbone, to_backbone
from s3pt_mm.weights.files import write_weights
from s3pt_mm.weights.layouts import LayoutError

SUFFIX = '.backbone.safetensors'


def describe(state: Mapping[str, Tensor], num_heads: int) -> dict[str, Any]:
    """Arguments that build the network anew, for timm and for mmpretrain.

    Args:
        state: weights in mmpretrain's names.
        num_heads: attention heads, which no weight tells.

    Returns:
        ``timm`` and ``mmpretrain``: arguments of the ``VisionTransformer`` of each.
    """
    size = dimensions(state)
    image, patch = size.pop('img_size'), size.pop('patch_size')
    width, hidden = size['embed_dims'], size['feedforward_channels']
    timm: dict[str, Any] = dict(
        img_size=image, patch_size=patch, embed_dim=width, depth=size['num_layers']
    )
    timm |= dict(num_heads=num_heads, mlp_ratio=hidden / width, num_classes=0)
    ours = dict(arch={**size, 'num_heads': num_heads}, img_size=image, patch_size=patch)
    return {'timm': timm, 'mmpretrain': ours}


def preprocessing(data_preprocessor: nn.Module) -> dict[str, Any]:
    """Normalisation of the images, for pixels in [0, 1] as torchvision and timm have them.

    Raises:
        AttributeError: the preprocessor has no ``mean`` and ``std`` (it normalises nothing).
    """
    mean, std = (
        [round(float(value) / 255, 6) for value in getattr(data_preprocessor, name).flatten()]
        for name in ('mean', 'std')
    )
    return {'channels': 'RGB', 'range': [0, 1], 'mean': mean, 'std': std}


@HOOKS.register_module()
class BackboneFileHook(Hook):
    """Writes the file beside every checkpoint of ``SafeCheckpointHook``, before that is renamed.

    Whoever deletes a checkpoint deletes it too (:func:`s3pt_mm.resume.checkpoint_files.remove`). A
    backbone that is no plain ViT has no such file, and the log says so once.
    """

    priority = 'LOWEST'  # after SafeCheckpointHook has marked its checkpoint

    def __init__(self) -> None:
        self._useless = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Hand the file to whoever writes the checkpoint, in the background too.

        ``SafeCheckpointHook`` calls what it finds under ``write_beside``, from the copy that
        training does not change, and explains what goes wrong.
        """
        if self._useless or 'exact_resume' not in checkpoint:  # a best checkpoint has other names
            return
        model = unwrap(runner.model)
        try:
            state = to_backbone(checkpoint)
            heads = model.teacher.backbone.layers[0].attn.num_heads
            texts = {
                'architecture': json.dumps(describe(state, heads)),
                'preprocessing': json.dumps(preprocessing(model.data_preprocessor)),
            }
        except (LayoutError, AttributeError) as error:
            self._useless = True
            text = f'No {SUFFIX} beside the checkpoints: {error}'
            print_log(text, logger='current', level=logging.WARNING)
            return
        path = Path(runner.message_hub.get_info('last_ckpt')).with_suffix(SUFFIX)
        checkpoint.setdefault('write_beside', []).append(partial(_write, state, path, texts))


def _write(state: Mapping[str, Tensor], path: Path, texts: Mapping[str, str]) -> None:
    write_weights(from_backbone(state, 'timm'), path, texts)
