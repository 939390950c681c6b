# The run of vits16_nuscenes.py on any folder of images: no LiDAR, no info file.
# s3pt-train configs/dino/vits16_image_folder.py --cfg-options train_dataloader.dataset.data_root=/my/photos
_base_ = ['./vits16_nuscenes.py']
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ImageFolderDataset',
        data_root='data/images/',  # searched recursively
        pipeline=_base_.train_pipeline,
    ),
)
