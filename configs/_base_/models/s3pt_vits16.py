# S3PT with ViT-S/16 (supplement, Table 3): CrIBo with parts exchanged. Which, and by what numbers, is
# what the class S3PT says: vMF prototypes, probability centring, 128 clusters, depth, 2,500 images.
_base_ = ['./cribo_vits16.py']
model = dict(type='S3PT')
