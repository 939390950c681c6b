"""Who is on the street: parked and moving vehicles, people, building sites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive.actors import draw_size
from s3pt_mm.toydrive.street import Street

# Kinds that must appear beside the recorded path where a world is asked for them.
RARE = (
    'vehicle.truck', 'vehicle.bus.rigid', 'vehicle.trailer', 'vehicle.construction',
    'vehicle.motorcycle', 'vehicle.bicycle', 'movable_object.trafficcone', 'movable_object.barrier',
)  # fmt: skip
_LONG = ('vehicle.truck', 'vehicle.bus.rigid', 'vehicle.trailer')


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One object: what it is and how it moves along the street.

    Args:
        category: nuScenes category.
        size: (width, length, height), metres.
        s: Position along the street at time 0.
        d: Position across, constant.
        turn: Heading relative to the street's, radians.
        speed: ds/dt in m/s, signed; 0 for whatever stands.
    """

    category: str
    size: tuple[float, float, float]
    s: float
    d: float
    turn: float = 0.0
    speed: float = 0.0


class Planner:
    """Fills one street; every call draws from the same generator, so order matters.

    Args:
        rng: Source of all draws.
        street: Where.
        ego_speed: Speed of the recording car (m/s), which starts at s = 0 in ``ego_lane``.
        ego_lane: Lane index of the recording car, forward direction.
        duration: Seconds that will be recorded.
        density: Relative number of objects.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        street: Street,
        *,
        ego_speed: float,
        ego_lane: int,
        duration: float,
        density: float,
    ) -> None:
        self.rng, self.street, self.density = rng, street, density
        self.ego_speed, self.ego_lane, self.duration = ego_speed, ego_lane, duration
        self.placed: list[Placement] = []
        # (s, d, metres along the street) of parking places for things that are no traffic.
        self.left_free: list[tuple[float, float, float]] = []

    def _put(self, category: str, s: float, d: float, *, turn: float = 0.0, speed: float = 0.0,
             size: tuple[float, float, float] | None = None) -> None:  # fmt: skip
        size = draw_size(self.rng, category) if size is None else size
        self.placed.append(
            Placement(category=category, size=size, s=s, d=d, turn=turn, speed=speed)
        )

    def plan(self, required: tuple[str, ...]) -> list[Placement]:
        """All objects; each of ``required`` (from ``RARE``) stands beside the recorded path."""
        # Long things stand across the street, where they are seen over the traffic; small ones
        # and building sites stand on the recording car's side.
        own = [kind for kind in required if kind not in _LONG]
        across = [kind for kind in required if kind in _LONG]
        across += [k for k in RARE if k not in _LONG and k not in own and self.rng.uniform() < 0.1]
        self._parking(-1, own)
        self._parking(1, across)
        for side in (-1, 1):
            for lane in range(self.street.lanes):
                self._driving(side, lane)
            self._cyclists(side)
            self._walkers(side)
            self._bystanders(side)
        self._side_streets()
        return self.placed

    # Parking lane ------------------------------------------------------------------------------

    def _free(self, s: float, length: float) -> bool:
        middle = s + length / 2
        away = self.street.crossing_distance(middle) - self.street.crossing_half - length / 2
        return bool(away > 1.0)

    def _parking(self, side: int, wanted: list[str]) -> None:
        rng, street = self.rng, self.street
        d = street.parking(side)
        rng.shuffle(wanted)
        # The benchmark counts cones and barriers to 30 m only: they stand nearest (popped first).
        wanted.sort(key=lambda kind: kind.startswith('movable_object'))
        s = street.start + 16
        window = rng.uniform(-10, -4)  # where the wanted ones begin, just behind the first instant
        while s < street.end - 24:
            if wanted and s > window:
                kind = wanted[-1]
                length = self._reserve(kind)
                if not self._free(s, length):
                    s += 1.0
                    continue
                wanted.pop()
                self._stand(kind, s, side)
                s += length + 0.8
                continue
            if not self._free(s, 6.0) or rng.uniform() > 0.8 * self.density:
                s += rng.uniform(2.0, 6.5)
                continue
            draw = rng.uniform()
            if draw < 0.1:  # no traffic: scenery fills it
                self.left_free.append((s + 3.0, d, rng.uniform(3.5, 5.5)))
                s += 6.5
                continue
            if draw < 0.26:
                s = self._cycle_stand(s, side)
                continue
            kind = 'vehicle.car' if draw < 0.95 else 'vehicle.truck'
            size = draw_size(rng, kind)
            if not self._free(s, size[1]):
                s += 2.0
                continue
            turn = (0.0 if side < 0 else np.pi) + rng.normal(0, 0.02)
            self._put(kind, s + size[1] / 2, d + rng.normal(0, 0.08), turn=turn, size=size)
            s += size[1] + rng.uniform(0.7, 2.2)

    def _cycle_stand(self, s: float, side: int) -> float:
        """A few parked cycles in a row; returns where the row ends."""
        rng, d = self.rng, self.street.parking(side)
        kind = str(rng.choice(['vehicle.bicycle', 'vehicle.motorcycle']))
        step = 0.9 if kind == 'vehicle.bicycle' else 1.2
        count = int(rng.integers(2, 5))
        across = (0.0 if side < 0 else np.pi) + rng.choice([-1, 1]) * rng.uniform(0.6, 1.5)
        for i in range(count):
            self._put(kind, s + 0.6 + step * i, d - side * 0.2, turn=across + rng.normal(0, 0.1))
        return s + 1.2 + step * count

    @staticmethod
    def _reserve(kind: str) -> float:
        """Metres of parking lane that a wanted kind takes."""
        if kind == 'movable_object.barrier':
            return 12.0
        if kind == 'movable_object.trafficcone':
            return 7.0
        if kind in ('vehicle.bicycle', 'vehicle.motorcycle'):
            return 3.2
        return 1.19 * tx.SIZES[kind][1]

    def _stand(self, kind: str, s: float, side: int) -> None:
        rng, street = self.rng, self.street
        d, along = street.parking(side), 0.0 if side < 0 else np.pi
        kerbside = side * (street.half - 0.9)
        if kind == 'movable_object.barrier':
            for i in range(int(rng.integers(3, 5))):
                size = draw_size(rng, kind)
                self._put(
                    kind, s + 1.5 + 2.9 * i, d - side * 0.9, turn=along + np.pi / 2, size=size
                )
            for x in rng.uniform(1.5, 10, 2):
                self._put('human.pedestrian.construction_worker', s + x, kerbside,
                          turn=rng.uniform(-np.pi, np.pi))  # fmt: skip
            self._put('movable_object.debris', s + 5.7, d + side * 0.5, turn=rng.uniform(0, 3))
        elif kind == 'movable_object.trafficcone':
            for i in range(int(rng.integers(3, 6))):
                self._put(
                    kind, s + 0.5 + 1.3 * i, d - side * (0.2 + 0.2 * i), turn=rng.uniform(0, 3)
                )
        elif kind in ('vehicle.bicycle', 'vehicle.motorcycle'):
            # Across the lane, or along it near its outer edge: seen from the side either way.
            turn = along + rng.choice([0.0, np.pi, np.pi / 2 + rng.normal(0, 0.2)])
            self._put(kind, s + 1.6, d - side * 0.3, turn=turn)
        else:
            size = draw_size(rng, kind)
            self._put(kind, s + size[1] / 2, d, turn=along + rng.normal(0, 0.01), size=size)

    # Driving and cycle lanes -------------------------------------------------------------------

    def _clear_of_ego(self, side: int, lane: int, s: float, length: float) -> bool:
        if side > 0 or lane != self.ego_lane:
            return True
        return s - length / 2 > 14.0 or s + length / 2 < -12.0

    def _stays(self, s: float, speed: float, margin: float = 24.0) -> bool:
        last = s + speed * (self.duration + 1.0)
        return min(s, last) > self.street.start + margin and max(s, last) < self.street.end - margin

    def _driving(self, side: int, lane: int) -> None:
        rng, street = self.rng, self.street
        own = side < 0 and lane == self.ego_lane
        speed = self.ego_speed if own else -side * rng.uniform(2.0, 8.0)
        d, turn = street.lane(lane, side), 0.0 if side < 0 else np.pi
        s = street.start + rng.uniform(24, 40)
        while s < street.end - 24:
            kind = rng.choice(
                ['vehicle.car', 'vehicle.truck', 'vehicle.bus.rigid', 'vehicle.bus.bendy',
                 'vehicle.motorcycle'], p=[0.8, 0.065, 0.02, 0.015, 0.1])  # fmt: skip
            size = draw_size(rng, kind)
            if kind == 'vehicle.motorcycle':
                size = (size[0], size[1], round(size[2] * 1.2, 3))  # with its rider
            centre = s + size[1] / 2
            if self._clear_of_ego(side, lane, centre, size[1]) and self._stays(centre, speed):
                self._put(kind, centre, d + rng.normal(0, 0.1), turn=turn, speed=speed, size=size)
                if kind == 'vehicle.truck' and rng.uniform() < 0.35:
                    load = draw_size(rng, 'vehicle.trailer')
                    behind = centre + side * (size[1] / 2 + load[1] / 2 + 0.4)
                    if (
                        side > 0
                        and self._stays(behind, speed)
                        and self._clear_of_ego(side, lane, behind, load[1])
                    ):
                        self._put('vehicle.trailer', behind, d, turn=turn, speed=speed, size=load)
                        s += load[1] + 0.4
            s += size[1] + rng.uniform(7, 34) / self.density

    def _cyclists(self, side: int) -> None:
        rng = self.rng
        speed = -side * rng.uniform(2.5, 5.5)
        for _ in range(rng.poisson(3.0 * self.density)):
            s = rng.uniform(-25, 70)
            size = draw_size(rng, 'vehicle.bicycle')
            size = (size[0], size[1], round(size[2] * 1.35, 3))
            near = [p for p in self.placed if p.speed == speed and abs(p.s - s) < 4]
            if self._stays(s, speed) and not near:
                self._put('vehicle.bicycle', s, self.street.cycle_lane(side),
                          turn=0.0 if side < 0 else np.pi, speed=speed, size=size)  # fmt: skip

    # Pavements ---------------------------------------------------------------------------------

    def _person(self) -> str:
        return 'human.pedestrian.adult' if self.rng.uniform() < 0.88 else 'human.pedestrian.child'

    def _walkers(self, side: int) -> None:
        rng, street = self.rng, self.street
        for track in (1.55, 2.3):
            speed = rng.choice([-1, 1]) * rng.uniform(0.8, 1.7)
            s = street.start + rng.uniform(24, 50)
            while s < street.end - 24:
                if self._stays(s, speed):
                    self._put(self._person(), s, side * (street.half + track),
                              turn=0.0 if speed > 0 else np.pi, speed=speed)  # fmt: skip
                s += rng.uniform(1.2, 22) / self.density

    def _bystanders(self, side: int) -> None:
        rng, street = self.rng, self.street
        for _ in range(rng.poisson(7 * self.density)):
            s = rng.uniform(street.start + 24, street.end - 24)
            if street.crossing_distance(s) < street.crossing_half + 4:
                continue
            for i in range(int(rng.integers(1, 4))):
                self._put(self._person(), s + 0.95 * i, side * (street.half + 3.05 + 0.05 * i),
                          turn=rng.uniform(-np.pi, np.pi))  # fmt: skip
        for _ in range(rng.poisson(1.2 * self.density)):
            s = rng.uniform(street.start + 24, street.end - 24)
            if street.crossing_distance(s) > street.crossing_half + 2:
                self._put('movable_object.pushable_pullable', s, side * (street.half + 3.9),
                          turn=rng.uniform(-3, 3))  # fmt: skip

    def _side_streets(self) -> None:
        rng, street = self.rng, self.street
        for crossing in street.crossings:
            for side in (-1, 1):
                d = street.half + rng.uniform(5, 12)
                while d < 60:
                    size = draw_size(rng, 'vehicle.car')
                    s = crossing + rng.choice([-1, 1]) * (street.crossing_half - 1.3)
                    if rng.uniform() < 0.5 * self.density:
                        self._put('vehicle.car', s, side * (d + size[1] / 2),
                                  turn=rng.choice([-1, 1]) * np.pi / 2, size=size)  # fmt: skip
                    d += size[1] + rng.uniform(1, 9)
