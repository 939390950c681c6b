# S3PT from DINOv2's ViT-B/14 instead of from nothing, 20 epochs (docs/continue.md). All numbers that differ
# from vitb16_nuscenes.py are this package's choices, not the paper's.
# torchrun --nproc_per_node 8 s3pt-train configs/s3pt/vitb14_dinov2_continue.py --init dinov2_vitb14_pretrain.pth --launcher pytorch
_base_ = ['./vitb16_nuscenes.py']
epochs = 20
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmViT',
        name='vit_base_patch14_dinov2',  # with registers: vit_base_patch14_reg4_dinov2
        img_size=224,  # the position embedding of 518 pixels is resized to it
        drop_path_rate=0.1,
        out_type='raw',
    )
)
train_pipeline = _base_.train_pipeline
train_pipeline[4].update(patch_size=14)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(layer_decay_rate=0.9),  # the first layers learn at a quarter of the rate
)
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=1)
param_scheduler[1].update(begin=1, end=epochs, T_max=epochs - 1, eta_min=1e-6)
param_scheduler[2].update(end=epochs, T_max=epochs, eta_min=0.04)  # decay stays as it was trained
train_cfg = dict(max_epochs=epochs)
default_hooks = dict(
    method_schedule=dict(linear=dict(teacher_temperature=dict(epochs=5))),
    last_layer_freeze=dict(epochs=0),  # the heads are what has to learn first
    backbone_freeze=dict(type='BackboneFreezeHook', epochs=1),
)
