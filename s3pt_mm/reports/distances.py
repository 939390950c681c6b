"""How far objects are from the vehicle: the numbers behind the supplement's Fig. 2."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

CLASSES = (
    'car', 'truck', 'trailer', 'bus', 'construction_vehicle',
    'bicycle', 'motorcycle', 'pedestrian', 'traffic_cone', 'barrier',
)  # fmt: skip
"""mmdet3d's order, used where an info file does not say its own."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    'vehicle': ('car', 'truck', 'trailer', 'bus', 'construction_vehicle'),
    'pedestrian': ('pedestrian',),
    'cyclist': ('bicycle', 'motorcycle'),
}
"""Detection classes of each group of Fig. 2 (choice of this package)."""

CAP = 65.0
"""Distance in metres at which Fig. 2 ends."""


@dataclass(frozen=True)
class GroupDistances:
    """Distances of one group of objects.

    Attributes:
        within: Distances up to the cap, metres, ascending.
        beyond: Number of objects farther away than the cap.
    """

    within: np.ndarray
    beyond: int


def object_distances(
    infos: Iterable[Mapping],
    *,
    categories: Mapping[str, int] | None = None,
    groups: Mapping[str, tuple[str, ...]] = GROUPS,
    cap: float = CAP,
    valid_only: bool = False,
) -> dict[str, GroupDistances]:
    """Horizontal distance of every object's centre from the ego's origin.

    Args:
        infos: ``data_list`` of an info file in mmdet3d's v2 format: ``instances`` with ``bbox_3d``
            (centre first) in the LiDAR frame and ``bbox_label_3d``; ``lidar_points.lidar2ego``.
        categories: Class name -> label as in the file's ``metainfo.categories``; mmdet3d's order
            of nuScenes' classes by default.
        groups: Group name -> classes.
        cap: Metres; farther objects are counted, not drawn.
        valid_only: Whether objects without LiDAR and radar points are left out.

    Returns:
        Group name -> its distances.

    Raises:
        ValueError: A class is not among the categories, or the cap is not positive.
    """
    if cap <= 0:
        raise ValueError(f'cap must be a positive number of metres, got {cap}')
    labels = dict(categories or {name: label for label, name in enumerate(CLASSES)})
    unknown = sorted({name for names in groups.values() for name in names} - set(labels))
    if unknown:
        raise ValueError(f'classes {unknown} are not among the categories {sorted(labels)}')
    group_of = {labels[name]: group for group, names in groups.items() for name in names}
    found: dict[str, list[float]] = {group: [] for group in groups}
    for info in infos:
        lidar2ego = np.asarray(info['lidar_points']['lidar2ego'], np.float64)
        for instance in info.get('instances', ()):
            group = group_of.get(instance['bbox_label_3d'])
            if group is None or (valid_only and not instance['bbox_3d_isvalid']):
                continue
            centre = lidar2ego[:3, :3] @ np.asarray(instance['bbox_3d'][:3]) + lidar2ego[:3, 3]
            found[group].append(float(np.hypot(centre[0], centre[1])))
    result = {}
    for group, values in found.items():
        distances = np.sort(np.array(values, np.float64))
        within = distances[distances <= cap]
        result[group] = GroupDistances(within=within, beyond=len(distances) - len(within))
    return result


def distance_summary(
    distances: Mapping[str, GroupDistances], *, ranges: tuple[float, ...] = (20.0, 30.0, 60.0)
) -> list[dict[str, object]]:
    """One row a group: counts, quartiles in metres, and the share within each range.

    Quartiles are over objects up to the cap, as drawn; shares are of all objects.
    """
    rows = []
    for group, values in distances.items():
        total = len(values.within) + values.beyond
        quartiles = np.quantile(values.within, (0.25, 0.5, 0.75)) if len(values.within) else []
        row: dict[str, object] = {'group': group, 'objects': total, 'beyond cap': values.beyond}
        names = ('first quartile', 'median', 'third quartile')
        # A group without objects has no quartiles.
        row.update(zip(names, map(float, quartiles), strict=False))
        for limit in ranges:
            if total:
                row[f'within {limit:g} m'] = float((values.within <= limit).sum() / total)
        rows.append(row)
    return rows
