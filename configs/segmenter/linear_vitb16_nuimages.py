# Linear probing of a frozen ViT-B/16 on nuImages.
_base_ = ['./linear_vits16_nuimages.py']
model = dict(
    backbone=dict(arch='deit-base'),
    decode_head=dict(in_channels=768, channels=768),
)
