# Foggy Driving, all 101 images, coarse labels.
_base_ = ['./_cityscapes_like.py']
test_dataloader = dict(
    dataset=dict(
        type='FoggyDrivingDataset',
        data_root='data/foggy_driving/',
        data_prefix=dict(
            img_path='leftImg8bit/public',
            seg_map_path='gtCoarse/public',
        ),
    )
)
