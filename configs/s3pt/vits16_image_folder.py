# The run of vits16_nuscenes.py on any folder of images: no LiDAR, no info file.
# s3pt-train configs/s3pt/vits16_image_folder.py --cfg-options train_dataloader.dataset.data_root=/my/photos
_base_ = ['./vits16_nuscenes.py']
# Depth without LiDAR, from any network's maps: train_dataloader.dataset.depth_map='/my/depth/{path}.png'
train_pipeline = _base_.train_pipeline
train_pipeline.insert(3, dict(type='LoadDepthMap'))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ImageFolderDataset',
        data_root='data/images/',  # searched recursively
        pipeline=train_pipeline,
    ),
)
