# ACDC, fog, validation split; the other conditions: night, rain, snow.
_base_ = ['./_cityscapes_like.py']
test_dataloader = dict(
    dataset=dict(
        type='ACDCSegDataset',
        data_root='data/acdc/',
        data_prefix=dict(
            img_path='rgb_anon/fog/val',
            seg_map_path='gt/fog/val',
        ),
    )
)
