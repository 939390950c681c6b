# S3PT, ViT-S/16, 100 epochs: patch-size study (supplement, Table 5).
# torchrun --nproc_per_node 8 s3pt-train configs/s3pt/vits16_nuscenes_100e.py --launcher pytorch
_base_ = [
    '../_base_/models/s3pt_vits16.py',
    '../_base_/datasets/nuscenes_two_views_depth.py',
    '../_base_/schedules/vits_100e.py',
]
