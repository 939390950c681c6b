# ToyDrive in other light, for tools/domain_generalisation.py --target; made by
#   python tools/create_toydrive.py --out data/toydrive_fog --weather fog --only nuimages
#   python tools/create_data.py nuimages --root data/toydrive_fog/nuimages
_base_ = ['../linear_vitt16_nuimages.py']
test_dataloader = dict(dataset=dict(data_root='data/toydrive_fog/nuimages/'))
