# PETR on a frozen ViT-B/16, nuScenes (supplement, Table 4). Commands: see vits16_nuscenes.py.
_base_ = ['../_base_/detection/petr_vit.py']
hidden_width = 768  # the ViT's own width (the supplement prints 784)

model = dict(
    img_backbone=dict(arch='base'),
    pts_bbox_head=dict(in_channels=768, embed_dims=hidden_width),
)
