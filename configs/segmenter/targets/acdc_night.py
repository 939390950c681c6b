# ACDC, night, validation split.
_base_ = ['./_cityscapes_like.py']
test_dataloader = dict(
    dataset=dict(
        type='ACDCSegDataset',
        data_root='data/acdc/',
        data_prefix=dict(
            img_path='rgb_anon/night/val',
            seg_map_path='gt/night/val',
        ),
    )
)
