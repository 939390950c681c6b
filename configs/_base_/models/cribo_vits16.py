# CrIBo with ViT-S/16 (supplement, Table 2): DINO's networks with an object level.
_base_ = ['./dino_vits16.py']
model = dict(
    type='CrIBo',
    head=dict(with_objects=True),
    clustering=dict(
        num_clusters=32,
        sinkhorn_iterations=5,
        sinkhorn_lambda=20.0,
        position_weight=1.0,
        depth_weight=0.0,
        rounds=5,
        cost_scope='batch',
    ),
    queue_images=25000,
    queue_dtype='float16',  # choice of this package: half of the memory's size, same neighbours
    cross_image_from_epoch=1,
)
