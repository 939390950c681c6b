# CrIBo on ToyDrive: the S3PT copy with CrIBo's parts; 8 clusters, as few as CrIBo's 32 of 392 tokens.
_base_ = ['./s3pt_vitt16.py']
model = dict(
    type='CrIBo',
    clustering=dict(num_clusters=8),
)
