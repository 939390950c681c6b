# The run of vits16_nuscenes.py on an info file of your own logs (s3pt-data writes it; docs/data.md).
# s3pt-train configs/s3pt/vits16_logs.py --cfg-options train_dataloader.dataset.data_root=data/mine train_dataloader.dataset.ann_file=folder_infos_train.parquet
_base_ = ['./vits16_nuscenes.py']
# Depth maps that the info file names take the place of LiDAR.
train_pipeline = _base_.train_pipeline
train_pipeline.insert(3, dict(type='LoadDepthMap'))
train_dataloader = dict(
    dataset=dict(
        data_root='data/logs/', ann_file='folder_infos_train.parquet', pipeline=train_pipeline
    ),
)
