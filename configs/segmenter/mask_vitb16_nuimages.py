# Mask Transformer probing of a frozen ViT-B/16 on nuImages.
_base_ = ['./mask_vits16_nuimages.py']
model = dict(
    backbone=dict(arch='deit-base'),
    decode_head=dict(in_channels=768, channels=768, num_heads=12, embed_dims=768),
)
