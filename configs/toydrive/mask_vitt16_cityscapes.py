# Mask Transformer probing on ToyDrive's Cityscapes folders; see linear_vitt16_nuimages.py.
_base_ = ['./linear_vitt16_cityscapes.py']
model = dict(
    decode_head=dict(
        _delete_=True,
        type='MaskTransformerSegHead',
        in_channels=128,
        channels=128,
        num_classes=19,
        num_layers=2,
        num_heads=4,
        embed_dims=128,
        dropout_ratio=0.0,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
