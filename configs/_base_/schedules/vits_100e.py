# The ViT-S recipe over 100 epochs: patch-size study and ablation.
_base_ = ['./vits_500e.py']
epochs = 100
warmup_epochs = 10
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-9,
        begin=0,
        end=warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=warmup_epochs,
        end=epochs,
        T_max=epochs - warmup_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingWeightDecay',
        eta_min=0.4,
        begin=0,
        end=epochs,
        T_max=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=epochs)
