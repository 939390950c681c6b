# DINO, ViT-B/16, nuScenes key frames, 100 epochs, total batch 256 (supplement, Tables 1-3).
# torchrun --nproc_per_node 8 s3pt-train configs/dino/vitb16_nuscenes.py --launcher pytorch
_base_ = [
    '../_base_/models/dino_vits16.py',
    '../_base_/datasets/nuscenes_multi_crop.py',
    '../_base_/schedules/vitb_100e.py',
]
model = dict(backbone=dict(arch='deit-base'), head=dict(unit_norm_prototypes=True))
