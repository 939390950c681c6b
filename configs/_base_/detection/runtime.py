"""What every detection run shares and what does not change its result."""

default_scope = 'mmdet3d'
custom_imports = dict(
    imports=[
        's3pt_mm.hosts.applied',  # first: what today's libraries need
        's3pt_mm.detection',
        's3pt_mm.resume',
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
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # draw=True: every interval-th validation batch; s3pt-test --show-dir draws every sample.
    visualization=dict(type='SurroundVisualizationHook', draw=False, interval=50, score_thr=0.3),
    camera_order=dict(type='CameraOrderHook'),
    split_check=dict(type='SplitCheckHook'),
)
visualizer = dict(
    type='SurroundVisualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
log_processor = dict(window_size=50)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
