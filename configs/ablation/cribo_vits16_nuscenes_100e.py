# Ablation ladder, 100 epochs: first rung (supplement, Fig. 1).
# torchrun --nproc_per_node 8 s3pt-train configs/ablation/cribo_vits16_nuscenes_100e.py --launcher pytorch
_base_ = [
    '../_base_/models/cribo_vits16.py',
    '../_base_/datasets/nuscenes_two_views.py',
    '../_base_/schedules/vits_100e.py',
]
