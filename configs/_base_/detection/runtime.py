"""What surrounds a detector: the package's rooms, pictures, and the camera check."""

_base_ = ['../default_runtime.py']

custom_imports = dict(
    imports=['s3pt_mm.datasets.transforms.seeding', 's3pt_mm.engine', 's3pt_mm.detection'],
    allow_failed_imports=False,
)
default_scope = 'mmdet3d'

visualizer = dict(type='SurroundVisualizer', vis_backends=[dict(type='LocalVisBackend')])
default_hooks = dict(
    # draw=True: every interval-th validation batch; tools/test.py --show-dir draws every sample.
    visualization=dict(type='SurroundVisualizationHook', draw=False, interval=50, score_thr=0.3),
)
custom_hooks = [dict(type='CameraOrderHook')]
