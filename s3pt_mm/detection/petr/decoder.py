"""PETR's decoder: mmcv's transformer layers, leaner inside (arXiv 2203.05625, section 3.3)."""

from __future__ import annotations

import torch
import torch.utils.checkpoint
from mmcv.cnn.bricks.transformer import FFN, BaseTransformerLayer, TransformerLayerSequence
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from s3pt_mm.detection.petr.attention import LeanMultiheadAttention


@MODELS.register_module()
class S3PTPETRDecoder(TransformerLayerSequence):
    """Layers of self-attention, cross-attention to the image tokens and feed-forward, post-norm.

    Weight names are those of mmcv's layers, which the published checkpoint has.

    Args:
        embed_dims: Width C.
        num_layers: Layers.
        num_heads: Heads.
        feedforward_channels: Hidden width of the feed-forward networks.
        dropout: Of attention weights, residual branches and feed-forward networks alike; PETR: 0.1.
        attention: 'plain', or 'kernel': dropout of attention weights on a CPU in blocks, faster and
            leaner, whose random bits are shared between blocks
            (:mod:`s3pt_mm.kernels.dropout_attention`). A GPU has its own fused form.
        recompute: Recompute each layer in the backward instead of keeping its activations: slower,
            less memory, same result.
        init_cfg: mmengine's; weights are Xavier uniform without it.
    """

    def __init__(
        self,
        *,
        embed_dims: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        attention: str = 'plain',
        recompute: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims {embed_dims} is no multiple of num_heads {num_heads}')
        attention_cfg = {
            'type': LeanMultiheadAttention,
            'embed_dims': embed_dims,
            'num_heads': num_heads,
            'attn_drop': dropout,
            'implementation': attention,
            'dropout_layer': {'type': 'Dropout', 'drop_prob': dropout},
        }
        layer = {
            'type': BaseTransformerLayer,
            'attn_cfgs': attention_cfg,
            'ffn_cfgs': {
                'type': FFN,
                'embed_dims': embed_dims,
                'feedforward_channels': feedforward_channels,
                'ffn_drop': dropout,
            },
            'operation_order': ('self_attn', 'norm', 'cross_attn', 'norm', 'ffn', 'norm'),
            'batch_first': True,
        }
        super().__init__(layer, num_layers, init_cfg)
        self.post_norm = nn.LayerNorm(embed_dims)
        self.recompute = recompute

    def init_weights(self) -> None:
        """Xavier uniform for every matrix, 0 for every layer's bias, as mmdetection3d's PETR."""
        super().init_weights()
        if self.init_cfg is None:
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)

    def forward(
        self, query_pos: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None
    ) -> Tensor:
        """Refines the queries, which start from zero.

        Args:
            query_pos: (B, Q, C), embedding of the reference points.
            key: (B, K, C), image tokens plus their position embedding.
            value: (B, K, C), image tokens.
            key_padding_mask: (B, K) bool, True at padding; None: no padding.

        Returns:
            (layers, B, Q, C), each layer's queries after the shared norm.
        """
        query = torch.zeros_like(query_pos)
        outputs = []
        for layer in self.layers:
            arguments = (query, key, value, query_pos, None, None, None, key_padding_mask)
            if self.recompute and self.training and torch.is_grad_enabled():
                query = torch.utils.checkpoint.checkpoint(layer, *arguments, use_reentrant=False)
            else:
                query = layer(*arguments)
            outputs.append(query)
        return self.post_norm(torch.stack(outputs))
