# Segmenter's Mask Transformer (2 layers) on a frozen ViT-S/16.
_base_ = ['./linear_vits16.py']
model = dict(
    decode_head=dict(
        _delete_=True,
        type='MaskTransformerSegHead',
        in_channels=384,
        channels=384,
        num_classes=13,
        num_layers=2,
        num_heads=6,
        embed_dims=384,
        dropout_ratio=0.0,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
)
