# PETR on a frozen ViT (supplement, Table 4). A leaf sets the backbone and the hidden width.
_base_ = ['./nuscenes_dataset.py', './runtime.py', './cyclic_20e.py']

point_cloud_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]  # metres
position_range = [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]  # metres; frustum points and results
hidden_width = 384
feature_width = 384  # of the ViT

model = dict(
    type='S3PTPETR',
    data_preprocessor=dict(
        type='Det3DDataPreprocessor',
        mean=[123.675, 116.28, 103.53],  # ImageNet, RGB
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=16,  # the patch size; 320 x 800 needs no padding
    ),
    # No `grid_mask`: it regularises a backbone that trains, and a frozen one never saw such images
    # (choice of this package).
    img_backbone=dict(
        type='mmpretrain.FrozenVisionTransformer',
        arch='deit-small',
        img_size=(320, 800),
        patch_size=16,
        drop_path_rate=0.1,  # Table 4; a frozen backbone is in eval mode, so it has no effect
        out_type='featmap',
        inference_dtype=None,  # 'bfloat16' computes the frozen features faster
        # DINO, CrIBo and S3PT differ in this checkpoint alone:
        # --cfg-options model.img_backbone.init_cfg.checkpoint=PATH
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='teacher.backbone.'),
    ),
    pts_bbox_head=dict(
        type='S3PTPETRHead',
        num_classes=10,
        in_channels=feature_width,
        embed_dims=hidden_width,
        num_query=900,
        pc_range=point_cloud_range,
        position_range=position_range,
        depth_num=64,
        depth_start=1.0,
        decoder=dict(
            type='S3PTPETRDecoder',
            num_layers=6,
            num_heads=8,
            feedforward_channels=2048,
            dropout=0.1,
            recompute=False,
        ),
        bbox_coder=dict(type='S3PTNMSFreeCoder', post_center_range=position_range, max_num=300),
        assigner=dict(
            type='S3PTHungarianAssigner3D',
            match_costs=[
                dict(type='mmdet.FocalLossCost', weight=2.0),
                dict(type='mmdet3d.S3PTBox3DL1Cost', weight=0.25),
            ],
        ),
        loss_cls=dict(
            type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0
        ),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25),
        # x, y, log l, log w, z, log h, sin, cos, vx, vy
        code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2],
    ),
)
