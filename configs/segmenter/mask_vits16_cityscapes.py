# Mask Transformer probing of a frozen ViT-S/16 on Cityscapes.
#   s3pt-train configs/segmenter/mask_vits16_cityscapes.py \
#     --cfg-options model.backbone.init_cfg.checkpoint=PATH
# The best of three learning rates: s3pt-sweep. Protocol: docs/segmentation.md.
_base_ = [
    '../_base_/segmentation/mask_vits16.py',
    '../_base_/segmentation/cityscapes_768.py',
    '../_base_/segmentation/schedule_160k.py',
    '../_base_/segmentation/runtime.py',
]
crop_size = (768, 768)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(img_size=768),
    decode_head=dict(num_classes=19),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(512, 512)),
)
