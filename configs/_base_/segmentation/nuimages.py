# nuImages, 13 classes, official split; the pipeline of mmseg's ADE20K config, but class 0 stays.
#   s3pt-data nuimages --root data/nuimages
# 25 classes: dataset.class_set='nuimages25', num_classes 25. The random 80/20 split:
# ann_file='nuimages_random_train.json' and '..._val.json' after create_data --random-split 0.8.
data_root = 'data/nuimages/'
crop_size = (512, 512)
scale = (2048, 512)  # long and short side, pixels
train_pipeline = [
    dict(type='SeedFromIndex'),
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='LoadSegmentationLabels'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    # After Resize: figures are computed at the mask's own resolution.
    dict(type='LoadSegmentationLabels'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='KeyedSampler', shuffle=True),
    dataset=dict(
        type='NuImagesDataset',
        data_root=data_root,
        ann_file='nuimages_train.json',
        class_set='nuimages13',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='NuImagesDataset',
        data_root=data_root,
        ann_file='nuimages_val.json',
        class_set='nuimages13',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='SegmentationMetric')
test_evaluator = val_evaluator
