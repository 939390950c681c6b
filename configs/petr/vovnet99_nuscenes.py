# The supervised baseline: PETR on VoVNet-99 with CPFPN, trained (not frozen), nuScenes.
#   s3pt-train configs/petr/vovnet99_nuscenes.py
#       --cfg-options load_from=fcos3d_vovnet_imgbackbone-remapped.pth
# The file holds the image backbone's weights alone, under img_backbone.; mmdetection3d's PETR
# project links it. Its published PETR checkpoint loads with every name and shape:
#   s3pt-test configs/petr/vovnet99_nuscenes.py PETR_CHECKPOINT
# Published by that project: mAP 0.3778, NDS 0.4264 (24 epochs of its own schedule).
_base_ = ['../_base_/detection/petr_vit.py']

model = dict(
    data_preprocessor=dict(
        mean=[103.530, 116.280, 123.675],  # BGR, as that project
        std=[57.375, 57.120, 58.395],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    grid_mask=dict(prob=0.7, ratio=0.5),
    img_backbone=dict(
        _delete_=True,
        type='S3PTVoVNet',
        depth=99,
        out_stages=(4, 5),
        frozen_stages=-1,
        norm_eval=True,
        recompute=True,
    ),
    img_neck=dict(type='S3PTCPFPN', in_channels=[768, 1024], out_channels=256),
    pts_bbox_head=dict(in_channels=256, embed_dims=256),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.1))))
