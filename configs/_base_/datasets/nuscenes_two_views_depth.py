# The same two views; LiDAR depth is densified first, as S3PT's paper says. By what method it does not
# say: docs/clusters.md has what each one changes.
_base_ = ['./nuscenes_two_views.py']
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(depth_completion='classical')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
