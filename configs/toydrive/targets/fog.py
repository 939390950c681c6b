# ToyDrive in other light, for s3pt-domains --target; made by
#   s3pt-toydrive --out data/toydrive_fog --weather fog --only nuimages
#   s3pt-data nuimages --root data/toydrive_fog/nuimages
_base_ = ['../linear_vitt16_nuimages.py']
test_dataloader = dict(dataset=dict(data_root='data/toydrive_fog/nuimages/'))
