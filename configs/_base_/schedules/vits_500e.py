# ViT-S recipe: 500 epochs at total batch 256 (supplement, Tables 1-3).
_base_ = ['../pretrain_runtime.py']
epochs = 500
warmup_epochs = 10

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.04, fused=True),
    constructor='PretrainOptimConstructor',
    paramwise_cfg=dict(clip='each_tensor'),
)
# The rate follows the real total batch; the final rate does not.
auto_scale_lr = dict(enable=True, base_batch_size=256)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-9,  # from 0, which mmengine's recursion cannot leave
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
train_cfg = dict(type='ExactEpochTrainLoop', max_epochs=epochs)
default_hooks = dict(
    method_schedule=dict(
        linear=dict(teacher_temperature=dict(start=0.04, end=0.07, epochs=30)),
    ),
    last_layer_freeze=dict(epochs=1),
)
