# PETR on a frozen ViT-S/16, nuScenes (supplement, Table 4 and 6). Any pre-training checkpoint:
#   s3pt-train configs/petr/vits16_nuscenes.py
#       --cfg-options model.img_backbone.init_cfg.checkpoint=work_dirs/s3pt/vits16_nuscenes/epoch_500.pth
#   s3pt-test configs/petr/vits16_nuscenes.py CHECKPOINT
# Published with S3PT, 500 epochs: mAP .362 / .285 / .224 within 20 / 30 / 60 m (Table 6).
_base_ = ['../_base_/detection/petr_vit.py']
