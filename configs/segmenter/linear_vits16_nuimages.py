# Linear probing of a frozen ViT-S/16 on nuImages.
#   s3pt-train configs/segmenter/linear_vits16_nuimages.py \
#     --cfg-options model.backbone.init_cfg.checkpoint=PATH
# The best of three learning rates: s3pt-sweep. Protocol: docs/segmentation.md.
_base_ = [
    '../_base_/segmentation/linear_vits16.py',
    '../_base_/segmentation/nuimages.py',
    '../_base_/segmentation/schedule_160k.py',
    '../_base_/segmentation/runtime.py',
]
