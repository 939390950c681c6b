# The demo's run: S3PT on ToyDrive with the k-NN probe. `make demo` runs it; by hand:
# python tools/train.py configs/toydrive/demo_s3pt_vitt16.py
# Two cores: a few minutes; dense k-NN mIoU rises by 3 points or more over the random ViT's.
_base_ = ['./s3pt_vitt16.py']
probe = dict(image_size=(224, 400), max_images=48)
custom_hooks = [
    dict(type='MethodScheduleHook'),
    dict(type='LastLayerFreezeHook', epochs=8),
    dict(type='TeacherUpdateHook', start=0.99, end=1.0),
    dict(type='TrainingLogHook'),
    dict(type='DivergenceHook'),
    dict(
        type='KnnProbeHook',
        interval=10,
        train=dict(ann_file='data/toydrive/nuimages/nuimages_train.json', **probe),
        val=dict(ann_file='data/toydrive/nuimages/nuimages_val.json', **probe),
    ),
]
