# PETR on ToyDrive with a frozen ViT of 6 layers, 128 wide: trained and tested on the same few
# samples, so it has to overfit. It shows that the chain learns, not that the detector is good.
#   python tools/train.py configs/toydrive/petr_vitt16.py
#       --cfg-options model.img_backbone.init_cfg.checkpoint=PATH_OF_A_TOYDRIVE_PRETRAINING
# Everything that differs from ../petr/vits16_nuscenes.py is a choice of this package for two cores.
_base_ = ['../_base_/detection/petr_vit.py']

data_root = 'data/toydrive/nuscenes/'
num_samples = 2  # the split: the first samples of the training info file
image_size = (128, 320)  # (height, width), pixels: scale 0.2
iterations = 600  # 400 leave a quarter of the boxes a metre off

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

cameras = [
    'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT',
    'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT',
]  # fmt: skip
point_cloud_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
class_names = [
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer',
    'barrier', 'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone',
]  # fmt: skip
meta_keys = [
    'token', 'sample_idx', 'img_path', 'camera_names', 'ori_shape', 'img_shape', 'pad_shape',
    'lidar2img', 'ori_lidar2img', 'cam2img', 'lidar2cam', 'lidar2ego', 'flip', 'scale_factor',
    'box_mode_3d', 'box_type_3d', 'num_views',
]  # fmt: skip
load = [
    dict(type='LoadSurroundImages', cameras=cameras),
    dict(type='MultiViewResizeCropFlip', size=image_size, training=False),
]
# No augmentation: the test sees what training saw.
train_pipeline = [
    *load,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=class_names),
    dict(type='Pack3DDetInputs', keys=['img', 'gt_bboxes_3d', 'gt_labels_3d'], meta_keys=meta_keys),
]
test_pipeline = [*load, dict(type='Pack3DDetInputs', keys=['img'], meta_keys=meta_keys)]

split = dict(
    data_root=data_root,
    ann_file='nuscenes_infos_train.pkl',
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
        up=iterations // 5,
        total=iterations,
        peak_ratio=4.0,
        final_ratio=0.01,
        warmup=iterations // 20,
        by_epoch=False,
    ),
]
train_cfg = dict(
    _delete_=True, type='ExactIterTrainLoop', max_iters=iterations, val_interval=iterations
)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(by_epoch=False, interval=iterations))
log_processor = dict(by_epoch=False)
