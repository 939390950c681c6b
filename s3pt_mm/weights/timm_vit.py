"""Any ViT of timm as a backbone: registers, rotary positions, layer scale, SwiGLU.

``dict(type='mmpretrain.TimmViT', name='vit_base_patch14_reg4_dinov2', img_size=518)`` stands where
mmpretrain's ``VisionTransformer`` does: pre-training (``out_type='raw'``), Segmenter and PETR
(``'featmap'``; frozen as ``FrozenTimmViT``).
"""

from __future__ import annotations

from typing import Any

from s3pt_mm.common.models import load_strictly
from s3pt_mm.hosts import compat

compat.apply()  # before mmpretrain.models is imported for the first time

from mmengine.model import BaseModule  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from s3pt_mm.weights.frozen import FrozenMixin  # noqa: E402


@MODELS.register_module()
class TimmViT(BaseModule):
    """A ViT that ``timm.create_model`` makes, with its own weight names under ``model.``.

    Args:
        name: timm's, e.g. ``vit_base_patch14_reg4_dinov2``, ``vit_small_patch16_dinov3``.
        img_size: Pixels of the images that the position embedding is made for, one number or
            (height, width); images of other sizes are taken, too. Default: timm's.
        out_type: 'raw': tokens (n, extra + N, d) after the final norm, class token first, then
            registers, then patches, of images whose sides are multiples of the patch; 'featmap':
            patches alone, (n, d, h, w), of any image: zeros to its right and below fill the last
            patches, as mmpretrain's ViT does.
        drop_path_rate: Of timm's model.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)`` of weights in these names;
            ``--init`` brings public ones into them.
        **kwargs: Of timm's model.

    Raises:
        ValueError: For another ``out_type``, or a model of timm that is no plain ViT.
        ImportError: timm is not installed.

    Attributes:
        embed_dims: d.
        num_extra_tokens: Class token and registers.
    """

    takes_any_argument = True  # timm's, which configs are not compared with

    def __init__(
        self,
        name: str,
        *,
        img_size: int | tuple[int, int] | None = None,
        out_type: str = 'raw',
        drop_path_rate: float = 0.0,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        try:
            import timm
        except ImportError as error:
            raise ImportError('TimmViT needs timm: pip install "timm>=1.0.20"') from error
        if out_type not in ('raw', 'featmap'):
            raise ValueError(f"out_type must be 'raw' or 'featmap', got {out_type!r}")
        super().__init__(init_cfg=init_cfg)
        if img_size is not None:
            kwargs['img_size'] = img_size
        fixed: dict[str, Any] = dict(
            pretrained=False, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True
        )
        model: Any  # VisionTransformer or Eva, which share no base class
        try:
            model = timm.create_model(name, **fixed, drop_path_rate=drop_path_rate, **kwargs)
        except (TypeError, RuntimeError) as error:  # an argument or a name that timm does not have
            raise ValueError(f'TimmViT, {name}: {error}') from error
        if not (hasattr(model, 'blocks') and hasattr(model, 'num_prefix_tokens')):
            raise ValueError(f'{name} of timm is a {type(model).__name__}, not a ViT')
        for unused in ('fc_norm', 'head_drop', 'head', 'attn_pool'):
            setattr(model, unused, nn.Identity())
        self.model, self.out_type = model, out_type
        self.embed_dims: int = model.embed_dim
        self.num_extra_tokens: int = model.num_prefix_tokens
        self.register_load_state_dict_pre_hook(_resize_positions)

    @property
    def patch_embed(self) -> nn.Module:
        """The patch filters."""
        return self.model.patch_embed

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of a patch, pixels."""
        return self.model.patch_embed.patch_size

    def init_weights(self) -> None:
        """timm has started the weights; load those of ``init_cfg`` over them."""
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            load_strictly(self, self.init_cfg['checkpoint'], self.init_cfg.get('prefix'))
        self._is_init = True

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(n, 3, h, w) -> one output; see ``out_type``.

        Raises:
            ValueError: 'raw' tokens of an image whose sides are no multiples of the patch.
        """
        sides = list(zip(x.shape[2:], self.patch_size, strict=True))
        if self.out_type == 'raw' and any(side % patch for side, patch in sides):
            raise ValueError(
                f'images of {tuple(x.shape[2:])} pixels are no multiple of the patch, '
                f'{self.patch_size}: choose another size of views'
            )
        tokens = self.model.forward_features(x)
        if self.out_type == 'raw':
            return (tokens,)
        height, width = (-(-side // patch) for side, patch in sides)
        patches = tokens[:, self.num_extra_tokens :]
        return (patches.transpose(1, 2).unflatten(2, (height, width)).contiguous(),)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter and number of layers, as mmpretrain's layer-wise decay asks.

        Args:
            param_name: Full name.
            prefix: Of this backbone in the model.
        """
        name = param_name.removeprefix(prefix).removeprefix('model.')
        layers = len(self.model.blocks) + 2
        if name.startswith('blocks.'):
            return int(name.split('.')[1]) + 1, layers
        return (layers - 1 if name.startswith('norm') else 0), layers


def _resize_positions(module: TimmViT, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Bring a position embedding of another grid to this model's, while loading."""
    import math

    from timm.layers import resample_abs_pos_embed

    name = f'{prefix}model.pos_embed'
    own = getattr(module.model, 'pos_embed', None)
    if name not in state or own is None or state[name].shape == own.shape:
        return
    extra = 0 if getattr(module.model, 'no_embed_class', False) else module.num_extra_tokens
    if math.isqrt(state[name].shape[1] - extra) ** 2 != state[name].shape[1] - extra:
        return  # of images that are not square: load_state_dict names both shapes
    state[name] = resample_abs_pos_embed(
        state[name], new_size=list(module.model.patch_embed.grid_size), num_prefix_tokens=extra
    )


@MODELS.register_module()
class FrozenTimmViT(FrozenMixin, TimmViT):
    """:class:`TimmViT`, frozen; use ``out_type='featmap'``."""
