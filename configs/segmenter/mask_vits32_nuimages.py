# Patch-size study of the supplement's Table 5: Mask Transformer probing of a frozen ViT-S/32.
_base_ = ['./mask_vits16_nuimages.py']
model = dict(backbone=dict(patch_size=32))
