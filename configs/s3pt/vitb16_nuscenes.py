# S3PT, ViT-B/16, nuScenes key frames, 100 epochs, total batch 256 (supplement, Tables 1-3).
# torchrun --nproc_per_node 8 s3pt-train configs/s3pt/vitb16_nuscenes.py --launcher pytorch
_base_ = [
    '../_base_/models/s3pt_vits16.py',
    '../_base_/datasets/nuscenes_two_views_depth.py',
    '../_base_/schedules/vitb_100e.py',
]
model = dict(backbone=dict(arch='deit-base'))
# Crops start at a larger share of the image than ViT-S's.
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(0.32, 1.0))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
