# The demo's run: S3PT on ToyDrive with the k-NN probe. `make demo` runs it; by hand:
# s3pt-train configs/toydrive/demo_s3pt_vitt16.py
#
# Choices of this package for a run of minutes, beyond those of s3pt_vitt16.py: half the batch and
# as many steps; mild colours (with the published ones, the two views of a toy street have so
# little in common for a small network that its targets stay flat for hundreds of steps); a narrow
# bottleneck, which spreads the logits of few prototypes; a teacher that follows sooner; 96
# prototypes in place of 512, so that they stand for kinds of things rather than for single images.
# Patch filters stay as they were initialised: what CrIBo, on a held-out seed, did least badly with
# (docs/evidence.md). Crops of half of the image or more give more objects that both views show.
_base_ = ['./s3pt_vitt16.py']
epochs = 16  # of 24 iterations at ToyDrive's default size

model = dict(head=dict(num_prototypes=96, bottleneck_channels=32), freeze_patch_embed=True)
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(
    scale=(0.5, 1.0),
    brightness=0.2,
    contrast=0.2,
    saturation=0.1,
    hue=0.03,
    grey_prob=0.0,
    blur_prob=(0.3, 0.0),
    solarize_prob=(0.0, 0.0),
)
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=16)
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=2)
param_scheduler[1].update(begin=2, end=epochs, T_max=epochs - 2)
train_cfg = dict(max_epochs=epochs)
probe = dict(class_set='nuimages5', image_size=(160, 160))  # of crops
default_hooks = dict(
    checkpoint=dict(interval=4),
    last_layer_freeze=dict(epochs=4),
    teacher_update=dict(start=0.98),
    knn_probe=dict(
        type='KnnProbeHook',
        interval=8,  # before the first step, half-way and at the end
        k=20,
        train=dict(ann_file='data/toydrive/nuimages/nuimages_train.json', max_images=64, **probe),
        val=dict(ann_file='data/toydrive/nuimages/nuimages_val.json', max_images=32, **probe),
    ),
)
