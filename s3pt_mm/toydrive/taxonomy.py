"""Names, sizes and label numbers of the three data sets that ToyDrive writes."""

from __future__ import annotations

from s3pt_mm.data.class_sets import NUIMAGES_CATEGORIES

# nuScenes category -> mean size (width, length, height) in metres, near the nuScenes means.
SIZES: dict[str, tuple[float, float, float]] = {
    'vehicle.car': (1.95, 4.62, 1.73),
    'vehicle.truck': (2.51, 6.93, 2.84),
    'vehicle.bus.rigid': (2.94, 11.2, 3.47),
    'vehicle.bus.bendy': (2.96, 12.6, 3.45),
    'vehicle.trailer': (2.90, 12.29, 3.87),
    'vehicle.construction': (2.73, 6.37, 3.19),
    'human.pedestrian.adult': (0.67, 0.73, 1.77),
    'human.pedestrian.child': (0.52, 0.53, 1.37),
    'human.pedestrian.construction_worker': (0.69, 0.75, 1.75),
    'vehicle.motorcycle': (0.77, 2.11, 1.47),
    'vehicle.bicycle': (0.60, 1.70, 1.28),
    'movable_object.trafficcone': (0.41, 0.41, 1.07),
    'movable_object.barrier': (2.53, 0.50, 0.98),
    'movable_object.pushable_pullable': (0.60, 0.66, 1.06),
    'movable_object.debris': (0.9, 0.8, 0.5),
}

# nuScenes category -> detection class, as the detection challenge merges them.
DETECTION_CLASS: dict[str, str] = {
    'vehicle.car': 'car',
    'vehicle.truck': 'truck',
    'vehicle.bus.rigid': 'bus',
    'vehicle.bus.bendy': 'bus',
    'vehicle.trailer': 'trailer',
    'vehicle.construction': 'construction_vehicle',
    'human.pedestrian.adult': 'pedestrian',
    'human.pedestrian.child': 'pedestrian',
    'human.pedestrian.construction_worker': 'pedestrian',
    'vehicle.motorcycle': 'motorcycle',
    'vehicle.bicycle': 'bicycle',
    'movable_object.trafficcone': 'traffic_cone',
    'movable_object.barrier': 'barrier',
}

NUSCENES_CATEGORIES = tuple(
    name for name in NUIMAGES_CATEGORIES if name not in ('flat.driveable_surface', 'vehicle.ego')
)
ATTRIBUTES = (
    'cycle.with_rider', 'cycle.without_rider', 'pedestrian.moving', 'pedestrian.standing',
    'pedestrian.sitting_lying_down', 'vehicle.moving', 'vehicle.parked', 'vehicle.stopped',
)  # fmt: skip

# Cityscapes label numbers (the `id` and `trainId` columns of its published label table).
UNLABELED, EGO, STATIC, ROAD, SIDEWALK = 0, 1, 4, 7, 8
BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN = 11, 12, 13, 17, 19, 20
VEGETATION, TERRAIN, SKY, PERSON, RIDER = 21, 22, 23, 24, 25
CAR, TRUCK, BUS, TRAILER, MOTORCYCLE, BICYCLE = 26, 27, 28, 30, 32, 33
TRAIN_IDS: dict[int, int] = {
    ROAD: 0, SIDEWALK: 1, BUILDING: 2, WALL: 3, FENCE: 4, POLE: 5, TRAFFIC_LIGHT: 6,
    TRAFFIC_SIGN: 7, VEGETATION: 8, TERRAIN: 9, SKY: 10, PERSON: 11, RIDER: 12, CAR: 13, TRUCK: 14,
    BUS: 15, MOTORCYCLE: 17, BICYCLE: 18,
}  # fmt: skip

# Cityscapes label of an object's parts; a rider's own parts say RIDER instead. Cityscapes has no
# class for cones, so they are `static`; construction machines count as trucks there.
CITYSCAPES_LABEL: dict[str, int] = {
    'vehicle.car': CAR,
    'vehicle.truck': TRUCK,
    'vehicle.bus.rigid': BUS,
    'vehicle.bus.bendy': BUS,
    'vehicle.trailer': TRAILER,
    'vehicle.construction': TRUCK,
    'vehicle.ego': EGO,
    'human.pedestrian.adult': PERSON,
    'human.pedestrian.child': PERSON,
    'human.pedestrian.construction_worker': PERSON,
    'vehicle.motorcycle': MOTORCYCLE,
    'vehicle.bicycle': BICYCLE,
    'movable_object.trafficcone': STATIC,
    'movable_object.barrier': FENCE,
    'movable_object.pushable_pullable': STATIC,
    'movable_object.debris': STATIC,
}


def attribute_of(category: str, speed: float) -> str:
    """Attribute that mmdet3d's ``NuScenesMetric`` derives from class and speed (m/s).

    It knows no other source of attributes, so data whose truth follows the same rule can reach an
    attribute error of zero. Returns '' for classes without attributes.
    """
    kind = DETECTION_CLASS.get(category)
    moving = speed > 0.2
    if kind == 'pedestrian':
        return 'pedestrian.moving' if moving else 'pedestrian.standing'
    if kind in ('bicycle', 'motorcycle'):
        return 'cycle.with_rider' if moving else 'cycle.without_rider'
    if kind == 'bus':
        return 'vehicle.moving' if moving else 'vehicle.stopped'
    if kind in ('car', 'truck', 'trailer', 'construction_vehicle'):
        return 'vehicle.moving' if moving else 'vehicle.parked'
    return ''
