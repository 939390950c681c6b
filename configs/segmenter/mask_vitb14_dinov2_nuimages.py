# Mask Transformer probing of DINOv2's ViT-B/14 with registers, frozen, through timm; any ViT of timm by its name.
#   s3pt-train configs/segmenter/mask_vitb14_dinov2_nuimages.py --init dinov2_vitb14_reg4_pretrain.pth
# Of a checkpoint of vitb14_dinov2_continue.py: --cfg-options model.backbone.init_cfg.checkpoint=PATH
_base_ = ['./mask_vits14_nuimages.py']
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.FrozenTimmViT',
        name='vit_base_patch14_reg4_dinov2',
        img_size=518,  # of a crop: other sizes than multiples of 14 are filled with zeros
        out_type='featmap',
        inference_dtype=None,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='teacher.backbone.'),
    ),
    decode_head=dict(in_channels=768, channels=768, num_heads=12, embed_dims=768),
)
