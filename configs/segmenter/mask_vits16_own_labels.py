# Mask Transformer probing of a frozen ViT-S/16 on images and masks of your own (docs/own_labels.md).
#   s3pt-train configs/segmenter/mask_vits16_own_labels.py --cfg-options \
#     model.backbone.init_cfg.checkpoint=PATH model.decode_head.num_classes=11
# data/own/ (a link will do) has classes.yaml, train/, val/ and masks of the same names in trainannot/, valannot/.
_base_ = ['./mask_vits16_nuimages.py']
data_root = 'data/own/'
crop_size = (352, 352)  # pixels, of images 360 high
scale = (1440, 360)  # long and short side
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=scale)
train_pipeline[4].update(crop_size=crop_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
own = dict(type='FolderSegDataset', data_root=data_root, class_set='classes.yaml')
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        **own,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        **own,
        data_prefix=dict(img_path='val', seg_map_path='valannot'),
        pipeline=test_pipeline,
        test_mode=True,
    )
)
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(img_size=crop_size[0]),
    decode_head=dict(num_classes=11),  # as many as classes.yaml lists
    test_cfg=dict(crop_size=crop_size, stride=(320, 320)),
)
