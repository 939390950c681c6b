# CrIBo with ViT-S/16 (supplement, Table 2): DINO's networks with an object level. Clusters, Sinkhorn
# iterations, weights and the memory's size are the defaults of CrIBo and of its ClusteringConfig.
_base_ = ['./dino_vits16.py']
model = dict(
    type='CrIBo',
    head=dict(with_objects=True),
    queue_dtype='float16',  # choice of this package: half of the memory's size, same neighbours
)
