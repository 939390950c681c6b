# The probe's schedule: 160,000 iterations (supplement), AdamW and lr/10 at the end (choice of this
# package, after CrIBo's probing code). What is reported is the best of lr 8e-4, 3e-4 and 8e-5:
# s3pt-sweep. Weight decay 0.01, total batch 8.
max_iters = 160000
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.01, fused=True),
    clip_grad=None,
)
param_scheduler = [
    dict(
        type='PolyLRToFraction',
        final_fraction=0.1,
        power=0.9,
        begin=0,
        end=max_iters,
        by_epoch=False,
    )
]
train_cfg = dict(type='ExactIterTrainLoop', max_iters=max_iters, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# The total over ranks; on n GPUs give train_dataloader.batch_size=8/n.
auto_scale_lr = dict(enable=False, base_batch_size=8)
