# Foggy Cityscapes, attenuation 0.02 per metre, with Cityscapes' own labels.
_base_ = ['./_cityscapes_like.py']
test_dataloader = dict(
    dataset=dict(
        type='FoggyCityscapesDataset',
        data_root='data/cityscapes/',
        data_prefix=dict(
            img_path='leftImg8bit_foggyDBF/val',
            seg_map_path='gtFine/val',
        ),
        beta=0.02,
    )
)
