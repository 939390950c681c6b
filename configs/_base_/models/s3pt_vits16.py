# S3PT with ViT-S/16 (supplement, Table 3): CrIBo with parts exchanged.
_base_ = ['./cribo_vits16.py']
model = dict(
    type='S3PT',
    head=dict(prototype_kind='vmf'),  # semantic distribution consistency ...
    center_space='probability',  # ... and the centre that goes with it
    clustering=dict(
        num_clusters=128,  # object diversity consistency
        sinkhorn_iterations=1,
        depth_weight=4.0,  # depth guidance
    ),
    queue_images=2500,  # object diversity consistency
)
