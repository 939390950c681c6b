"""ToyDrive by day -> ToyDrive in fog: nuImages' 13 classes on both sides."""

from s3pt_mm.segmentation.class_mapping import same_classes

MAPPING = same_classes('nuimages13')
