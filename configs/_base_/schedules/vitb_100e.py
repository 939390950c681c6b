# ViT-B recipe: 100 epochs at total batch 256 (supplement, Tables 1-3).
_base_ = ['./vits_100e.py']
optim_wrapper = dict(optimizer=dict(lr=7.5e-4), clip_grad=dict(max_norm=0.3))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-9,
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=2e-6,
        begin=10,
        end=100,
        T_max=90,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingWeightDecay',
        eta_min=0.4,
        begin=0,
        end=100,
        T_max=100,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    dict(
        type='MethodScheduleHook',
        linear=dict(teacher_temperature=dict(start=0.04, end=0.07, epochs=50)),
    ),
    dict(type='LastLayerFreezeHook', epochs=3),
    dict(type='TeacherUpdateHook', start=0.996, end=1.0),
    dict(type='TrainingLogHook'),
    dict(type='DivergenceHook'),
]
