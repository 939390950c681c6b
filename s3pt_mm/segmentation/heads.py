"""mmseg's two Segmenter heads with the same weights and losses, and without the waste.

With a frozen backbone the head is what a training step still pays for. What the stock heads spend
without effect: the training accuracy sorts all class scores of every pixel (``topk``) where a
maximum is enough; loss and gradients go over full-resolution scores about ten times
(:mod:`s3pt_mm.segmentation.upsampled_loss`); mmcv's attention returns its (tokens x tokens)
weights, so PyTorch has to write them out; patches are normalised before their product with the
classes though one division of each product does. State dicts are those of the stock classes, and so
are losses and gradients up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import FCNHead, SegmenterMaskTransformerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.utils import SampleList
from torch import Tensor, nn

from s3pt_mm.segmentation.upsampled_loss import upsampled_cross_entropy


def pixel_accuracy(seg_logits: Tensor, seg_label: Tensor, ignore_index: int) -> Tensor:
    """Share of labelled pixels whose highest score is the label's, in percent.

    Args:
        seg_logits: (B, C, H, W).
        seg_label: (B, H, W) integers.
        ignore_index: Label that does not count.

    Returns:
        (1,) float, as mmseg's ``accuracy``; 0 when no pixel is labelled.
    """
    labelled = (seg_label != ignore_index).sum()
    # An ignored label is no class, so it can never be hit.
    hits = (seg_logits.detach().argmax(1) == seg_label).sum()
    return (100.0 * hits / labelled.clamp(min=1)).reshape(1)


class LeanLossMixin(BaseDecodeHead):
    """Replaces ``loss_by_feat`` of mmseg's decode heads; same losses, cheaper accuracy."""

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses and training accuracy.

        Args:
            seg_logits: (B, C, h, w) scores of the patch grid.
            batch_data_samples: B samples with ``gt_sem_seg``.

        Returns:
            One entry a loss, named as in mmseg, and ``acc_seg`` (percent).
        """
        label = self._stack_batch_gt(batch_data_samples)
        if seg_logits.device.type == 'cpu' and self._has_plain_loss():
            return self._plain_loss(seg_logits, label.squeeze(1))
        seg_logits = resize(
            seg_logits, size=label.shape[2:], mode='bilinear', align_corners=self.align_corners
        )
        weight = self.sampler.sample(seg_logits, label) if self.sampler is not None else None
        label = label.squeeze(1)
        several = isinstance(self.loss_decode, nn.ModuleList)
        terms: Iterable[Any] = self.loss_decode if several else [self.loss_decode]
        losses: dict[str, Tensor] = {}
        for term in terms:
            value = term(seg_logits, label, weight=weight, ignore_index=self.ignore_index)
            losses[term.loss_name] = losses.get(term.loss_name, 0) + value
        losses['acc_seg'] = pixel_accuracy(seg_logits, label, self.ignore_index)
        return losses

    def _has_plain_loss(self) -> bool:
        """Whether the loss is softmax cross-entropy, the same for each pixel and class."""
        term = self.loss_decode
        return (
            self.sampler is None
            and type(term) is CrossEntropyLoss
            and not term.use_sigmoid
            and not term.use_mask
            and term.reduction == 'mean'
            and term.class_weight is None
        )

    def _plain_loss(self, seg_logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        total, hits = upsampled_cross_entropy(
            seg_logits, label, self.ignore_index, self.align_corners
        )
        labelled = (label != self.ignore_index).sum()
        term = self.loss_decode
        # As mmseg: ignored pixels enter the mean (as zeros) unless avg_non_ignore is set.
        count = labelled.clamp(min=1) if term.avg_non_ignore else label.numel()
        accuracy = (100.0 * hits / labelled.clamp(min=1)).reshape(1)
        return {term.loss_name: term.loss_weight * total / count, 'acc_seg': accuracy}


@MODELS.register_module()
class LinearSegHead(LeanLossMixin, FCNHead):
    """Segmenter's linear head: ``FCNHead`` with ``num_convs=0``, i.e. one 1x1 convolution."""


@MODELS.register_module()
class MaskTransformerSegHead(LeanLossMixin, SegmenterMaskTransformerHead):
    """Segmenter's Mask Transformer; attention without materialised weights."""

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Scores of each class at each patch.

        Args:
            inputs: Feature maps; the one at ``in_index`` (B, C_in, h, w) is used.

        Returns:
            (B, num_classes, h, w).
        """
        features = self._transform_inputs(inputs)
        height, width = features.shape[2:]
        tokens = self.dec_proj(features.flatten(2).transpose(1, 2))  # (B, h*w, d)
        classes = self.cls_emb.expand(len(tokens), -1, -1)
        tokens = torch.cat((tokens, classes), 1)
        for layer in self.layers:
            tokens = tokens + _attend(layer.attn, layer.norm1(tokens))
            tokens = layer.ffn(layer.norm2(tokens), identity=tokens)
        tokens = self.decoder_norm(tokens)
        patches = self.patch_proj(tokens[:, : -self.num_classes])
        classes = F.normalize(self.classes_proj(tokens[:, -self.num_classes :]), dim=2)
        # F.normalize of the patches, applied to num_classes products instead of d features.
        length = patches.norm(dim=2, keepdim=True).clamp(min=1e-12)
        masks = self.mask_norm(patches @ classes.transpose(1, 2) / length)  # (B, h*w, classes)
        return masks.transpose(1, 2).unflatten(2, (height, width))


def _attend(attention: Any, tokens: Tensor) -> Tensor:
    """Self-attention with the weights of mmcv's ``MultiheadAttention``; (B, N, d) -> (B, N, d)."""
    inner: nn.MultiheadAttention = attention.attn
    qkv = F.linear(tokens, inner.in_proj_weight, inner.in_proj_bias)
    query, key, value = qkv.unflatten(2, (3, inner.num_heads, -1)).permute(2, 0, 3, 1, 4)
    dropout = inner.dropout if inner.training else 0.0
    mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    mixed = inner.out_proj(mixed.transpose(1, 2).flatten(2))
    return attention.dropout_layer(attention.proj_drop(mixed))
