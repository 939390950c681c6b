"""nuImages (13 classes) -> Cityscapes (19): the eight that both label alike.

nuImages' driveable surface is Cityscapes' road. Cityscapes splits people in persons and riders;
nuImages labels a rider as part of the bicycle or motorcycle (its mask covers both), so riders are
left out. Construction vehicles and trailers are trucks or unlabelled in Cityscapes and are left
out, as are barrier and cone, which Cityscapes has no class for.
"""

from s3pt_mm.data.class_sets import CITYSCAPES_19, NUIMAGES_13
from s3pt_mm.segmentation.class_mapping import ClassMapping

SHARED = {
    'road': (('driveable surface',), ('road',)),
    'car': (('car',), ('car',)),
    'truck': (('truck',), ('truck',)),
    'bus': (('bus',), ('bus',)),
    'motorcycle': (('motorcycle',), ('motorcycle',)),
    'bicycle': (('bicycle',), ('bicycle',)),
    'person': (('pedestrian',), ('person',)),
    'background': (
        ('background',),
        ('sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
         'vegetation', 'terrain', 'sky'),
    ),
}  # fmt: skip
MAPPING = ClassMapping(NUIMAGES_13, CITYSCAPES_19, SHARED)
