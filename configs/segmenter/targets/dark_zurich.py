# Dark Zurich, night, validation split.
_base_ = ['./_cityscapes_like.py']
test_dataloader = dict(
    dataset=dict(
        type='DarkZurichDataset',
        data_root='data/dark_zurich/',
        data_prefix=dict(
            img_path='rgb_anon/val/night',
            seg_map_path='gt/val/night',
        ),
    )
)
