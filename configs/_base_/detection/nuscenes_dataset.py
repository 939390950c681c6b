"""nuScenes for camera-only detection: data, pipelines, evaluation (supplement, Table 4 and 6).

Info files: s3pt-data nuscenes --root data/nuscenes --version v1.0-trainval
    --out-dir data/nuscenes
"""

# ---- what a user changes -------------------------------------------------------------------------
data_root = 'data/nuscenes/'
image_size = (320, 800)  # (height, width) the model sees, pixels; supplement, Table 4
batch_size = 2  # per rank, one rank: the supplement's batch

# ---- what belongs to nuScenes and PETR -----------------------------------------------------------
class_names = [
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer',
    'barrier', 'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone',
]  # fmt: skip # the order of the published PETR checkpoint, not of mmdet3d's METAINFO
metainfo = dict(classes=class_names)
# x, y, z from, x, y, z to, metres, LiDAR frame: objects outside are no targets.
point_cloud_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
cameras = [
    'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT',
    'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT',
]  # fmt: skip # order of the views in the multi-view embedding
modality = dict(use_lidar=False, use_camera=True)
meta_keys = [
    'token', 'sample_idx', 'img_path', 'camera_names', 'ori_shape', 'img_shape', 'pad_shape',
    'lidar2img', 'ori_lidar2img', 'cam2img', 'lidar2cam', 'lidar2ego', 'flip', 'scale_factor',
    'pcd_rotation_angle', 'pcd_scale_factor', 'box_mode_3d', 'box_type_3d', 'num_views',
]  # fmt: skip

train_pipeline = [
    dict(type='SeedFromIndex'),
    dict(type='LoadSurroundImages', cameras=cameras),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=class_names),
    dict(
        type='MultiViewResizeCropFlip',
        size=image_size,
        resize_range=(0.47, 0.625),
        bottom_crop_range=(0.0, 0.0),
        flip_prob=0.5,
        training=True,
    ),
    dict(
        type='MultiViewGlobalRotScale', rotation_range=(-0.3925, 0.3925), scale_range=(0.95, 1.05)
    ),
    dict(type='Pack3DDetInputs', keys=['img', 'gt_bboxes_3d', 'gt_labels_3d'], meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadSurroundImages', cameras=cameras),
    dict(type='MultiViewResizeCropFlip', size=image_size, training=False),
    dict(type='Pack3DDetInputs', keys=['img'], meta_keys=meta_keys),
]

dataset = dict(
    type='SurroundNuScenesDataset',
    data_root=data_root,
    metainfo=metainfo,
    modality=modality,
    box_type_3d='LiDAR',
    use_valid_flag=True,
    data_prefix=dict(
        pts='samples/LIDAR_TOP',
        sweeps='sweeps/LIDAR_TOP',
        CAM_FRONT='samples/CAM_FRONT',
        CAM_FRONT_RIGHT='samples/CAM_FRONT_RIGHT',
        CAM_FRONT_LEFT='samples/CAM_FRONT_LEFT',
        CAM_BACK='samples/CAM_BACK',
        CAM_BACK_LEFT='samples/CAM_BACK_LEFT',
        CAM_BACK_RIGHT='samples/CAM_BACK_RIGHT',
    ),
)

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='KeyedSampler', shuffle=True),
    dataset=dict(
        ann_file='nuscenes_infos_train.parquet', pipeline=train_pipeline, test_mode=False, **dataset
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='nuscenes_infos_val.parquet', pipeline=test_pipeline, test_mode=True, **dataset
    ),
)
test_dataloader = val_dataloader

# mAP, NDS and the five true-positive errors, on nuScenes' validation split, as mmdet3d computes
# them; add format_only=True and jsonfile_prefix='...' for a submission file alone.
val_evaluator = dict(
    type='NuScenesMetric',
    data_root=data_root,
    ann_file=data_root + 'nuscenes_infos_val.parquet',
    metric='bbox',
    modality=dict(
        use_camera=True, use_lidar=False, use_radar=False, use_map=False, use_external=False
    ),
)
# Testing adds AP by range (supplement, Table 6); its submission is not cut to the official ranges.
test_evaluator = [
    val_evaluator,
    dict(type='NuScenesRangeMetric', data_root=data_root, ranges=(20, 30, 60)),
]
