# Two views of a nuScenes key frame's camera image, with token positions and LiDAR depth
# (supplement, Tables 1-3). Info file: s3pt-data nuscenes.
data_preprocessor = dict(
    type='ViewsPreprocessor',
    mean=[123.675, 116.28, 103.53],  # ImageNet, RGB
    std=[58.395, 57.12, 57.375],
    to_rgb=False,  # views are RGB already
)
train_pipeline = [
    dict(type='SeedFromIndex'),
    dict(type='LoadImage'),
    dict(type='LoadLidar'),
    dict(type='TwoViews', size=224, scale=(0.25, 1.0)),
    dict(type='TokenGeometry', patch_size=16),
    dict(type='PackViews'),
]
train_dataloader = dict(
    batch_size=32,  # a rank; 8 ranks make the recipe's 256
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='KeyedSampler', shuffle=True, seed=0),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='NuScenesImages',
        data_root='data/nuscenes/',
        ann_file='nuscenes_infos_train.parquet',
        pipeline=train_pipeline,
    ),
)
