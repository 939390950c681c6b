"""Cityscapes (19 classes) -> nuImages (13): ``nuimages_to_cityscapes`` the other way round."""

from s3pt_mm.data.class_sets import CITYSCAPES_19, NUIMAGES_13
from s3pt_mm.segmentation.class_mapping import ClassMapping
from s3pt_mm.segmentation.mappings.nuimages_to_cityscapes import SHARED

MAPPING = ClassMapping(
    CITYSCAPES_19, NUIMAGES_13, {name: (city, nu) for name, (nu, city) in SHARED.items()}
)
