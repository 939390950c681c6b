# Segmenter's linear head on a frozen ViT-S/16: tokens -> classes, enlarged bilinearly.
data_preprocessor = dict(
    type='SegDataPreProcessor',
    # ImageNet, as the backbone was trained; mmseg's Segmenter configs have 127.5.
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=(512, 512),
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='mmpretrain.FrozenVisionTransformer',
        arch='deit-small',
        img_size=512,
        patch_size=16,
        out_type='featmap',
        inference_dtype=None,  # 'bfloat16' or 'float16' run the frozen part faster
        # One argument of a run: --cfg-options model.backbone.init_cfg.checkpoint=PATH
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='teacher.backbone.'),
    ),
    decode_head=dict(
        type='LinearSegHead',
        in_channels=384,
        channels=384,
        num_convs=0,
        dropout_ratio=0.0,
        concat_input=False,
        num_classes=13,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(480, 480)),
)
