# S3PT, ViT-S/16, nuScenes key frames, 500 epochs, total batch 256 (supplement, Tables 1-3).
# torchrun --nproc_per_node 8 s3pt-train configs/s3pt/vits16_nuscenes.py --launcher pytorch
_base_ = [
    '../_base_/models/s3pt_vits16.py',
    '../_base_/datasets/nuscenes_two_views_depth.py',
    '../_base_/schedules/vits_500e.py',
]
