# Ablation ladder, 100 epochs: + depth guidance: the whole method (supplement, Fig. 1).
# torchrun --nproc_per_node 8 s3pt-train configs/ablation/s3pt_vits16_nuscenes_100e.py --launcher pytorch
_base_ = [
    '../_base_/models/s3pt_vits16.py',
    '../_base_/datasets/nuscenes_two_views_depth.py',
    '../_base_/schedules/vits_100e.py',
]
