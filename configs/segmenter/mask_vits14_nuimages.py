# Patch-size study of the supplement's Table 5: Mask Transformer probing of a frozen ViT-S/14.
# 518 = 37 x 14 takes the place of 512, which 14 does not divide.
_base_ = ['./mask_vits16_nuimages.py']
crop_size = (518, 518)
scale = (2072, 518)
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=scale)
train_pipeline[4].update(crop_size=crop_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
data_preprocessor = dict(size=crop_size)
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(patch_size=14, img_size=518),
    # The stride keeps the overlap of 512/480 in whole patches: 518 - 28.
    test_cfg=dict(crop_size=crop_size, stride=(490, 490)),
)
