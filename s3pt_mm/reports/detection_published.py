"""Figures of the S3PT supplement for detection, to be printed beside our own."""

from collections.abc import Mapping

CLASSES = (
    'car', 'truck', 'bus', 'trailer', 'pedestrian', 'motorcycle', 'bicycle', 'traffic_cone',
    'barrier',
)  # fmt: skip
"""Table 6's classes in its order; construction vehicle is left out there."""

RANGES = ('20m', '30m', '60m')

# Supplement (arXiv 2410.23085), Table 6: PETR on nuScenes, frozen ViT-S/16, AP.
_COLUMNS: Mapping[tuple[str, str], tuple[float, ...]] = {
    ('DINO', '20m'): (.515, .300, .276, .153, .455, .357, .033, .352, .592),
    ('CrIBo', '20m'): (.489, .344, .237, .103, .401, .331, .020, .335, .452),
    ('S3PT', '20m'): (.555, .368, .427, .222, .477, .405, .014, .370, .421),
    ('DINO', '30m'): (.288, .159, .172, .144, .337, .295, .016, .285, .418),
    ('CrIBo', '30m'): (.333, .229, .139, .082, .269, .210, .027, .287, .465),
    ('S3PT', '30m'): (.396, .281, .312, .168, .349, .307, .028, .297, .430),
    ('DINO', '60m'): (.276, .166, .077, .122, .226, .197, .006, .263, .369),
    ('CrIBo', '60m'): (.246, .151, .056, .053, .205, .196, .005, .263, .343),
    ('S3PT', '60m'): (.299, .195, .135, .168, .272, .275, .022, .285, .368),
}  # fmt: skip
_MEANS: Mapping[tuple[str, str], float] = {
    ('DINO', '20m'): .337, ('CrIBo', '20m'): .299, ('S3PT', '20m'): .362,
    ('DINO', '30m'): .261, ('CrIBo', '30m'): .227, ('S3PT', '30m'): .285,
    ('DINO', '60m'): .189, ('CrIBo', '60m'): .169, ('S3PT', '60m'): .224,
}  # fmt: skip
"""Printed means. DINO's at 30 m is not its column's mean (.235), nor is CrIBo's at 20 m (.301)."""

METHODS = ('DINO', 'CrIBo', 'S3PT')

TABLE6: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    method: {
        name: dict(zip(CLASSES, _COLUMNS[method, name], strict=True))
        | {'mAP': _MEANS[method, name]}
        for name in RANGES
    }
    for method in METHODS
}
"""Method -> range -> class or ``mAP`` -> AP, as printed."""
