# S3PT on ToyDrive: a 6-layer, 128-wide ViT/16 on 128-pixel views; minutes on two CPU cores.
# The recipe (batch norm in the head, xavier, few prototypes, fast teacher) is a choice of this
# package for runs of some hundred iterations; the published recipe sits in the uniform solution
# for longer than that.
_base_ = ['../_base_/models/s3pt_vits16.py', '../_base_/pretrain_runtime.py']
epochs = 40  # of 12 iterations at ToyDrive's default size

model = dict(
    backbone=dict(
        _delete_=True,
        type='S3PTVisionTransformer',
        arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=128,
        patch_size=16,
        out_type='raw',
    ),
    head=dict(
        num_prototypes=512,
        hidden_channels=512,
        bottleneck_channels=128,
        batch_norm=True,
        init='xavier',
    ),
    clustering=dict(num_clusters=24),
    queue_images=512,
    queue_dtype='float32',
)
data_preprocessor = dict(
    type='ViewsPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=False,
)
train_pipeline = [
    dict(type='SeedFromIndex'),
    dict(type='LoadImage'),
    dict(type='LoadLidar'),
    dict(type='TwoViews', size=128, scale=(0.25, 1.0), max_reduction=4),
    dict(type='TokenGeometry', patch_size=16),
    dict(type='PackViews'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='KeyedSampler', shuffle=True, seed=0),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='NuScenesImages',
        data_root='data/toydrive/nuscenes/',
        ann_file='nuscenes_infos_train.parquet',
        pipeline=train_pipeline,
    ),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.04, fused=True),
    constructor='PretrainOptimConstructor',
    clip_grad=dict(max_norm=1.0),
)
auto_scale_lr = dict(enable=True, base_batch_size=32)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        begin=0,
        end=4,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=4,
        end=epochs,
        T_max=epochs - 4,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='ExactEpochTrainLoop', max_epochs=epochs)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=10),
    last_layer_freeze=dict(epochs=8),
    teacher_update=dict(start=0.99),
)
log_processor = dict(window_size=10)
