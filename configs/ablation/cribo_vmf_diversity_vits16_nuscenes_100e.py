# Ablation ladder, 100 epochs: + object diversity consistency (supplement, Fig. 1).
# torchrun --nproc_per_node 8 s3pt-train configs/ablation/cribo_vmf_diversity_vits16_nuscenes_100e.py --launcher pytorch
_base_ = [
    '../_base_/models/cribo_vits16.py',
    '../_base_/datasets/nuscenes_two_views.py',
    '../_base_/schedules/vits_100e.py',
]
model = dict(type='S3PT', clustering=dict(depth_weight=0.0))  # all of S3PT but its depth term
