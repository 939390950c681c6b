# The demo's run: S3PT on ToyDrive with the k-NN probe. `make demo` runs it; by hand:
# s3pt-train configs/toydrive/demo_s3pt_vitt16.py
#
# Choices of this package for a run of minutes, beyond those of s3pt_vitt16.py: half the batch and
# as many steps; a stem of convolutions, which learns sooner than patch filters, with the published
# colours and crops in which objects are as large as the probe sees them, because patch filters and
# mild colours let a patch's brightness name its cluster, and nothing more is learned (what CrIBo
# did least badly with on a held-out seed: docs/evidence.md); a narrow bottleneck, which spreads the
# logits of few prototypes; a teacher that follows sooner; 96 prototypes in place of 512, so that
# they stand for kinds of things rather than for single images.
_base_ = ['./s3pt_vitt16.py']
epochs = 14  # of 24 iterations at ToyDrive's default size

model = dict(
    backbone=dict(stem='convolutions'), head=dict(num_prototypes=96, bottleneck_channels=32)
)
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(0.15, 0.5))
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=16)
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=2)
param_scheduler[1].update(begin=2, end=epochs, T_max=epochs - 2)
train_cfg = dict(max_epochs=epochs)
probe = dict(class_set='nuimages5', image_size=(160, 160))  # of crops
default_hooks = dict(
    checkpoint=dict(interval=7),
    last_layer_freeze=dict(epochs=4),
    teacher_update=dict(start=0.98),
    knn_probe=dict(
        type='KnnProbeHook',
        interval=epochs,  # before the first step and at the end
        k=20,
        train=dict(ann_file='data/toydrive/nuimages/nuimages_train.json', max_images=64, **probe),
        val=dict(ann_file='data/toydrive/nuimages/nuimages_val.json', max_images=32, **probe),
    ),
)
