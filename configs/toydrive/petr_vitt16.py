# PETR on ToyDrive with a frozen ViT of 6 layers, 128 wide: trained and tested on the same few
# samples, so it has to overfit. It shows that the chain learns, not that the detector is good.
#   s3pt-train configs/toydrive/petr_vitt16.py
#       --cfg-options model.img_backbone.init_cfg.checkpoint=PATH_OF_A_TOYDRIVE_PRETRAINING
# Everything that differs from ../petr/vits16_nuscenes.py is a choice of this package for two cores.
_base_ = ['../_base_/detection/petr_vit.py']

data_root = 'data/toydrive/nuscenes/'
num_samples = 2  # the split: the first samples of the training info file
image_size = (128, 320)  # (height, width), pixels: scale 0.2
max_iters = 600  # 400 leave a quarter of the boxes a metre off

model = dict(
    img_backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=128,
            num_layers=6,
            num_heads=4,
            feedforward_channels=512,
        ),
        img_size=image_size,
        drop_path_rate=0.0,
    ),
    pts_bbox_head=dict(
        in_channels=128,
        embed_dims=128,
        num_query=150,
        depth_num=32,
        decoder=dict(num_layers=3, num_heads=4, feedforward_channels=512, dropout=0.0),
    ),
)

# No augmentation: the test sees what training saw.
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(size=image_size)
annotations, pack = _base_.train_pipeline[2:5], _base_.train_pipeline[-1]
train_pipeline = [*test_pipeline[:2], *annotations, pack]

split = dict(
    data_root=data_root,
    ann_file='nuscenes_infos_train.parquet',
    indices=num_samples,
    keep_in_memory=True,  # nothing is random, so each sample is prepared once
)
train_dataloader = dict(
    batch_size=num_samples,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline, **split),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline, **split)
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='NuScenesSubsetMetric', data_root=data_root)
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [
    dict(
        type='S3PTCyclicLR',
        up=max_iters // 5,
        total=max_iters,
        peak_ratio=4.0,
        final_ratio=0.01,
        warmup=max_iters // 20,
        by_epoch=False,
    ),
]
train_cfg = dict(
    _delete_=True, type='ExactIterTrainLoop', max_iters=max_iters, val_interval=max_iters
)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(by_epoch=False, interval=max_iters))
log_processor = dict(by_epoch=False)
