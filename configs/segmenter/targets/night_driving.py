# Night Driving, test split, coarse labels.
_base_ = ['./_cityscapes_like.py']
test_dataloader = dict(
    dataset=dict(
        type='NightDrivingDataset',
        data_root='data/night_driving/',
        data_prefix=dict(
            img_path='leftImg8bit/test/night',
            seg_map_path='gtCoarse_daytime_trainvaltest/test/night',
        ),
    )
)
