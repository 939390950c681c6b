# Linear probing on ToyDrive's nuImages: the protocol of ../segmenter/, small enough for two cores.
#   s3pt-toydrive --out data/toydrive
#   s3pt-data nuimages --root data/toydrive/nuimages
#   s3pt-train configs/toydrive/linear_vitt16_nuimages.py \
#     --cfg-options model.backbone.init_cfg.checkpoint=PATH_OF_A_TOYDRIVE_PRETRAINING
# Sizes, iterations and learning rate are choices of this package; they are nobody's protocol.
_base_ = ['../segmenter/linear_vits16_nuimages.py']
data_root = 'data/toydrive/nuimages/'
crop_size = (224, 224)
scale = (448, 224)  # long and short side, pixels
max_iters = 400
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=scale, ratio_range=(0.75, 1.5))
train_pipeline[4].update(crop_size=crop_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
train_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512
        ),
        img_size=224,
    ),
    decode_head=dict(in_channels=128, channels=128),
    test_cfg=dict(crop_size=crop_size, stride=(176, 176)),
)
optim_wrapper = dict(optimizer=dict(lr=3e-2))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=200))
