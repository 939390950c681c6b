# Test data sets with Cityscapes' 19 classes, for s3pt-domains --target.
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=(2049, 1025), keep_ratio=True),
    dict(type='LoadSegmentationLabels', class_set='cityscapes19'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline, test_mode=True),
)
