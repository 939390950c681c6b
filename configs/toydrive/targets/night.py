# ToyDrive in other light, for tools/domain_generalisation.py --target; made by
#   python tools/create_toydrive.py --out data/toydrive_night --weather night --only nuimages
#   python tools/create_data.py nuimages --root data/toydrive_night/nuimages
_base_ = ['../linear_vitt16_nuimages.py']
test_dataloader = dict(dataset=dict(data_root='data/toydrive_night/nuimages/'))
