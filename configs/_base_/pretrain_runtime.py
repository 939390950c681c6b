# What every pre-training run shares and what does not change its result.
default_scope = 'mmpretrain'
custom_imports = dict(
    imports=[
        's3pt_mm.hosts.applied',  # first: what today's libraries need
        's3pt_mm.method.algorithms',
        's3pt_mm.weights.timm_vit',
        's3pt_mm.method.hooks',
        's3pt_mm.method.param_groups',
        's3pt_mm.data.datasets',
        's3pt_mm.probes.knn_hook',
        's3pt_mm.resume',
        's3pt_mm.weights.backbone_file',
    ],
    allow_failed_imports=False,
)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='SafeCheckpointHook',
        interval=1,
        interval_minutes=30,  # an epoch may take hours
        max_keep_ckpts=2,
        save_last=True,
        background=True,
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    backbone_file=dict(type='BackboneFileHook'),
    # The method's own, in this dict and not in `custom_hooks`: a child's list replaces its parent's
    # as a whole, a dict is merged.
    method_schedule=dict(type='MethodScheduleHook'),
    last_layer_freeze=dict(type='LastLayerFreezeHook'),
    teacher_update=dict(type='TeacherUpdateHook', start=0.996, end=1.0),
    training_log=dict(type='TrainingLogHook'),
    divergence=dict(type='DivergenceHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='mmengine.Visualizer', vis_backends=vis_backends)
log_processor = dict(window_size=50)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)

# Frozen prototypes get gradients of zeros, so every parameter takes part in every step.
find_unused_parameters = False
