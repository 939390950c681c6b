# S3PT, ViT-S/32, 100 epochs: patch-size study (supplement, Table 5).
# torchrun --nproc_per_node 8 tools/train.py configs/s3pt/vits32_nuscenes_100e.py --launcher pytorch
_base_ = [
    '../_base_/models/s3pt_vits16.py',
    '../_base_/datasets/nuscenes_two_views.py',
    '../_base_/schedules/vits_100e.py',
    '../_base_/pretrain_runtime.py',
]
# 49 tokens a view: 32 clusters instead of 128.
model = dict(backbone=dict(patch_size=32), clustering=dict(num_clusters=32))
train_pipeline = [
    dict(type='SeedFromIndex'),
    dict(type='LoadImage'),
    dict(type='LoadLidar'),
    dict(type='TwoViews', size=224, scale=(0.25, 1.0)),
    dict(type='TokenGeometry', patch_size=32),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
