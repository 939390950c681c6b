# DINO with ViT-S/16 (supplement, Table 1).
model = dict(
    type='S3PTDINO',
    backbone=dict(
        type='S3PTVisionTransformer',  # mmpretrain's, started as DINO's public code
        init='reference',
        pos_embed_resize='scale_factor',  # of local crops, as that code
        arch='deit-small',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,  # the student's; the teacher is in eval mode
        out_type='raw',
    ),
    head=dict(
        type='ProjectionHead',
        num_layers=3,
        hidden_channels=2048,
        bottleneck_channels=256,
        num_prototypes=65536,
        unit_norm_prototypes=False,
        with_objects=False,
    ),
    center_momentum=0.9,
    student_temperature=0.1,
    teacher_temperature=0.04,
)
