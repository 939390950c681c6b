# DINO on ToyDrive: two global views of 128 pixels and four local ones of 64.
_base_ = ['./s3pt_vitt16.py']
model = dict(
    _delete_=True,
    type='S3PTDINO',
    backbone=dict(
        type='S3PTVisionTransformer',
        arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=128,
        patch_size=16,
        out_type='raw',
    ),
    head=dict(
        type='ProjectionHead',
        num_prototypes=512,
        hidden_channels=512,
        bottleneck_channels=128,
        with_objects=False,
        batch_norm=True,
        init='xavier',
    ),
)
train_pipeline = [
    dict(type='SeedFromIndex'),
    dict(type='LoadImage'),
    dict(
        type='MultiCropViews',
        size=128,
        scale=(0.25, 1.0),
        num_local=4,
        local_size=64,
        local_scale=(0.05, 0.25),
        max_reduction=4,
    ),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
