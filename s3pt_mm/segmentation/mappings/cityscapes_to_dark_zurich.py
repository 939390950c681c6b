"""Cityscapes -> Dark Zurich (night): the same 19 classes."""

from s3pt_mm.segmentation.class_mapping import same_classes

MAPPING = same_classes('cityscapes19')
