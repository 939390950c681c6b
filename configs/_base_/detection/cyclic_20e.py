# AdamW on mmdet3d's cyclic-20e with the supplement's base rate and warm-up (Table 4).
# Choices of this package, see docs/detection.md: the cosines keep mmdet3d's 1e-3 and 1e-8, the
# warm-up multiplies them, and the momentum stops at 0.999.
base_lr = 3e-4
epochs = 20
epochs_up = 8

optim_wrapper = dict(
    type='OptimWrapper',  # Table 4: no fp16
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    # 3e-4 -> 1e-3 over 8 epochs -> 1e-8 over 12, times a linear warm-up over the first epoch.
    dict(
        type='S3PTCyclicLR',
        up=epochs_up,
        total=epochs,
        peak_ratio=1e-3 / base_lr,
        final_ratio=1e-8 / base_lr,
        warmup=1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    # 0.9 -> 0.85 / 0.95 over 8 epochs -> 1 over 12, cut at 0.999.
    dict(
        type='S3PTCyclicMomentum',
        up=epochs_up,
        total=epochs,
        peak_ratio=0.85 / 0.95 / 0.9,
        final_ratio=1 / 0.9,
        maximum=0.999,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='ExactEpochTrainLoop', max_epochs=epochs, val_interval=epochs)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=2)
