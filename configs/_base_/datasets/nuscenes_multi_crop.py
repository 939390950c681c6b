# DINO's two global and ten local crops of the same images; no geometry is needed.
_base_ = ['./nuscenes_two_views.py']
train_pipeline = [
    dict(type='SeedFromIndex'),
    dict(type='LoadImage'),
    dict(
        type='MultiCropViews',
        size=224,
        scale=(0.25, 1.0),
        num_local=10,
        local_size=96,
        local_scale=(0.05, 0.25),
    ),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
