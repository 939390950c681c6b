# PETR on DINOv2's ViT-B/14 with registers, frozen, through timm; any ViT of timm by its name.
#   s3pt-train configs/petr/vitb14_dinov2_nuscenes.py --init dinov2_vitb14_reg4_pretrain.pth
_base_ = ['../_base_/detection/petr_vit.py']

model = dict(
    data_preprocessor=dict(pad_size_divisor=14),  # 320 x 800 becomes 322 x 812
    img_backbone=dict(
        _delete_=True,
        type='mmpretrain.FrozenTimmViT',
        name='vit_base_patch14_reg4_dinov2',
        img_size=(322, 812),
        out_type='featmap',
        inference_dtype=None,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='teacher.backbone.'),
    ),
    pts_bbox_head=dict(in_channels=768, embed_dims=768),
)
