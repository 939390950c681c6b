"""From a frozen world and a camera to a photo and its exact labels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from s3pt_mm.toydrive import materials as mt
from s3pt_mm.toydrive import textures
from s3pt_mm.toydrive.sensors import Camera
from s3pt_mm.toydrive.taxonomy import SKY
from s3pt_mm.toydrive.tracing import Hits, Instant
from s3pt_mm.toydrive.world import Light

_BAND = 24_000  # rays shaded at once


@dataclass(frozen=True, eq=False)
class Photo:
    """A camera image with what is in it.

    Args:
        image: (H, W, 3) uint8 BGR at the camera's file size.
        labels: (h, w) uint8 Cityscapes label numbers at shading size.
        actors: (h, w) int32 instance numbers at shading size, 0 for scenery and sky.
        depth: (h, w) float32 metres along the optical axis, ``inf`` in the sky.
    """

    image: np.ndarray
    labels: np.ndarray
    actors: np.ndarray
    depth: np.ndarray

    def enlarged(self, array: np.ndarray) -> np.ndarray:
        """A label array at the image's size, nearest neighbour."""
        height, width = self.image.shape[:2]
        rows = np.arange(height) * array.shape[0] // height
        columns = np.arange(width) * array.shape[1] // width
        return array[rows[:, None], columns[None, :]]


def _along(rows: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Component (R,) of vectors (R, 3) along ``axis`` (3,).

    Not ``@``: BLAS rounds a product with one vector differently for another number of threads, and
    one seed must give the same bytes.
    """
    return np.einsum('ij,j->i', rows, axis.astype(np.float32))


def _sky(light: Light, directions: np.ndarray) -> np.ndarray:
    """Radiance (R, 3) of the sky along directions (R, 3)."""
    up = np.clip(directions[:, 2], 0.0, 1.0)
    zenith = light.sky_rgb * np.float32([0.55, 0.75, 1.15])
    horizon = light.sky_rgb * np.float32([1.25, 1.2, 1.1])
    colour = horizon + (zenith - horizon) * (up**0.45)[:, None]
    if light.kind == 'fog':
        return np.broadcast_to(light.sky_rgb * 1.05, colour.shape).astype(np.float32)
    reach = 1.0 / (up + 0.08)
    cloud = textures.noise(
        directions[:, 0] * reach * 3 + 50, directions[:, 1] * reach * 3 + 50, 1.6
    )
    cover = np.clip((cloud - 0.75 + 0.5 * light.clouds) * 5, 0, 1) * np.clip(up * 6, 0, 1)
    white = light.sky_rgb.mean() * np.float32([1.5, 1.5, 1.52]) * (0.6 + 0.7 * cloud)[:, None]
    colour = colour + (white - colour) * cover[:, None]
    if light.kind == 'day':
        glow = np.clip(_along(directions, light.sun), 0, 1)
        colour = colour + (light.sun_rgb * 0.5) * (glow**24 * (1 - 0.5 * light.clouds))[:, None]
    return colour.astype(np.float32)


def _lamp_light(instant: Instant, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Light (R, 3) of street lamps and of the recording car's headlights at night."""
    total = np.zeros((len(points), 3), np.float32)
    if len(points) == 0:
        return total
    position, rotation = instant.world.ego_pose(instant.time)
    warm = np.float32([1.0, 0.78, 0.5])
    lamps = instant.world.lamps
    near = np.linalg.norm(lamps[:, :2] - position[:2], axis=1) < 60 if len(lamps) else []
    strength = np.zeros(len(points), np.float32)
    for lamp in lamps[near]:
        way = lamp.astype(np.float32) - points
        square = np.einsum('ij,ij->i', way, way)
        facing = np.einsum('ij,ij->i', way, normals) / np.sqrt(square)
        down = way[:, 2] / np.sqrt(square)
        strength += np.maximum(facing, 0.08) * np.clip(down, 0, 1) ** 1.5 * 14.0 / (square + 4.0)
    total += warm * strength[:, None]
    front = (position + rotation @ [3.6, 0, 0.7]).astype(np.float32)
    way = points - front
    distance = np.linalg.norm(way, axis=1)
    cosine = _along(way, rotation[:, 0]) / np.maximum(distance, 0.1)
    beam = np.clip((cosine - 0.86) * 8, 0, 1) * 30.0 / (distance**2 + 30.0)
    facing = np.maximum(-np.einsum('ij,ij->i', way, normals) / np.maximum(distance, 0.1), 0.12)
    return total + np.float32([0.9, 0.9, 1.0]) * (beam * facing)[:, None]


def _local(
    instant: Instant, hits: Hits, points: np.ndarray, land: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals in each object's own frame, so that textures ride along with it; those of
    scenery keep their axes, with their height counted from the ``land`` (R,)."""
    place, normal = points.copy(), hits.normal.copy()
    place[:, 2] -= land
    on = np.flatnonzero(hits.actor)
    if len(on) == 0:
        return place, normal
    world = instant.world
    offsets = np.zeros((world.ego_number + 1, 3), np.float32)
    axes = np.zeros((world.ego_number + 1, 3, 3), np.float32)
    for number in np.unique(hits.actor[on]):
        if number == world.ego_number:
            offsets[number], axes[number] = world.ego_pose(instant.time)
        else:
            actor = world.actors[number - 1]
            offsets[number] = world.pose_of(actor, instant.time)[0]
            axes[number] = world.rotation_of(actor, instant.time)
    own = axes[hits.actor[on]]
    place[on] = np.einsum('ri,rij->rj', points[on] - offsets[hits.actor[on]], own)
    normal[on] = np.einsum('ri,rij->rj', normal[on], own)
    return place, normal


def _albedo(
    instant: Instant,
    hits: Hits,
    points: np.ndarray,
    land: np.ndarray,
    hit: np.ndarray,
    footprint: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Colour (R, 3), mirror share (R,), own light (R, 3) and label (R,) of the surfaces hit."""
    table = instant.world.materials
    material = hits.material[hit]
    rows = table[material]
    kinds = rows[:, mt.KIND].astype(np.int32)
    place, normal = _local(instant, hits, points, land)
    place, normal = place[hit], normal[hit]
    flat = np.abs(normal[:, 2]) > 0.75
    horizontal = np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-6)
    u = (place[:, 1] * normal[:, 0] - place[:, 0] * normal[:, 1]) / horizontal
    u = np.where(flat, place[:, 0], u)
    v = np.where(flat, place[:, 1], place[:, 2])
    colour = rows[:, mt.RGB1].copy()
    gloss = rows[:, mt.GLOSS].copy()
    glow = np.zeros_like(colour)
    labels = rows[:, mt.LABEL].astype(np.uint8)
    night = instant.world.light.kind == 'night'
    for kind in np.unique(kinds):
        at = np.flatnonzero(kinds == kind)
        part = (rows[at], u[at], v[at], footprint[hit][at])
        if kind == mt.STRIPES:
            colour[at] = textures.stripes(*part)
        elif kind == mt.PATCHES:
            colour[at] = textures.patches(*part)
        elif kind == mt.FOLIAGE:
            colour[at] = textures.foliage(*part)
        elif kind == mt.BRICKS:
            colour[at] = textures.bricks(*part)
        elif kind == mt.FACADE:
            wall = at[~flat[at]]
            colour[wall], glass, pane = textures.facade(
                rows[wall], u[wall], v[wall], footprint[hit][wall]
            )
            gloss[wall] = np.maximum(gloss[wall], 0.6 * glass)
            if night:
                lit = glass * (pane < rows[wall, mt.GLOW])
                glow[wall] = np.float32([0.5, 0.36, 0.18]) * lit[:, None]
        elif kind == mt.LAMP and night:
            glow[at] = rows[at, mt.RGB1] * rows[at, mt.GLOW, None]
        elif kind == mt.GROUND:
            colour[at], labels[at] = textures.ground(
                instant.world.street, table, int(material[at].min()), points[hit][at, :2],
                footprint[hit][at],
            )  # fmt: skip
    plain = kinds != mt.GROUND  # dirt and wear, so that no surface is one flat colour
    salt = rows[plain, mt.SALT]
    dirt = textures.noise(u[plain] + salt, v[plain] + 2 * salt, 1.1)
    colour[plain] *= (0.72 + 0.56 * dirt)[:, None]
    return colour, gloss, glow, labels


def _shade(
    instant: Instant, origin: np.ndarray, directions: np.ndarray, pixel: float
) -> tuple[np.ndarray, np.ndarray, Hits]:
    """Radiance (R, 3), label (R,) and hits of rays; ``pixel`` is a pixel's width at one metre."""
    light = instant.world.light
    hits = instant.trace(origin, directions)
    hit = np.flatnonzero(hits.material >= 0)
    near = np.where(np.isfinite(hits.distance), hits.distance, np.float32(0))
    points = origin.astype(np.float32) + directions * near[:, None]
    footprint = near * np.float32(pixel)
    radiance = np.zeros((len(directions), 3), np.float32)
    labels = np.full(len(directions), SKY, dtype=np.uint8)
    free = np.flatnonzero(hits.material < 0)
    radiance[free] = _sky(light, directions[free])
    if len(hit) == 0:
        return radiance, labels, hits

    street = instant.world.street
    land = np.zeros(len(points), np.float32)
    land[hit] = street.elevation(street.to_street(points[hit, 0], points[hit, 1])[0])
    colour, gloss, glow, labels[hit] = _albedo(instant, hits, points, land, hit, footprint)
    normal, place, view = hits.normal[hit], points[hit], directions[hit]
    lifted = place + normal * np.float32(0.02)
    ambient = np.float32(0.55) + np.float32(0.45) * normal[:, 2]
    # Sky light comes from above; little of it gets under a car.
    low = np.flatnonzero(place[:, 2] - land[hit] < 1.0)
    covered = instant.blocked(lifted[low], np.array([0.15, 0.1, 0.98]), 1.6)
    ambient[low[covered]] *= np.float32(0.35)
    received = light.sky_rgb.astype(np.float32) * ambient[:, None]
    if light.kind == 'day':
        facing = np.maximum(_along(normal, light.sun), 0)
        lit = np.flatnonzero(facing > 0)
        facing[lit[instant.blocked(lifted[lit], light.sun)]] = 0
        received += light.sun_rgb.astype(np.float32) * facing[:, None]
    elif light.kind == 'night':
        received += _lamp_light(instant, place, normal)
    shaded = colour * received + glow
    shiny = np.flatnonzero(gloss > 0.01)
    along = (view[shiny] * normal[shiny]).sum(1)
    mirrored = view[shiny] - 2 * along[:, None] * normal[shiny]
    share = gloss[shiny] * (0.25 + 0.75 * (1 - np.abs(along)) ** 3) * (mirrored[:, 2] > -0.05)
    shaded[shiny] += share[:, None] * (_sky(light, mirrored) - 0.3 * shaded[shiny])
    thin = np.exp(np.float32(-light.fog) * near[hit])[:, None]
    haze = light.sky_rgb.astype(np.float32) * np.float32(1.05)
    radiance[hit] = shaded * thin + haze * (1 - thin)
    return radiance, labels, hits


def render(instant: Instant, camera: Camera, *, scale: float, rng: np.random.Generator) -> Photo:
    """Shade one photo.

    Args:
        instant: The world at the exposure.
        camera: The camera; it rides on the world's recording car.
        scale: Shading resolution over file resolution.
        rng: Source of sensor noise and white balance.
    """
    width, height = round(camera.width * scale), round(camera.height * scale)
    position, rotation = instant.world.ego_pose(instant.time)
    own = camera.rays(width, height)
    turn = (rotation @ camera.rotation).T.astype(np.float32)
    origin = position + rotation @ camera.translation
    radiance = np.empty((len(own), 3), np.float32)
    labels = np.empty(len(own), np.uint8)
    actors = np.empty(len(own), np.int32)
    depth = np.empty(len(own), np.float32)
    step = width * max(1, _BAND // width)  # bands that fit the processor's cache
    for start in range(0, len(own), step):
        band = slice(start, start + step)
        radiance[band], labels[band], hits = _shade(
            instant, origin, own[band] @ turn, 1.0 / (camera.intrinsic[0, 0] * scale)
        )
        actors[band], depth[band] = hits.actor, hits.distance * own[band, 2]
    shape = (height, width)
    return Photo(
        image=_develop(radiance.reshape(*shape, 3), instant.world.light, camera, rng),
        labels=labels.reshape(shape),
        actors=actors.reshape(shape),
        depth=depth.reshape(shape),
    )


def _develop(
    radiance: np.ndarray, light: Light, camera: Camera, rng: np.random.Generator
) -> np.ndarray:
    """Exposure, glare, tone curve, sensor noise and enlargement: radiance to uint8 BGR."""
    height, width = radiance.shape[:2]
    if light.kind == 'night':
        bright = np.maximum(radiance - 0.25, 0)
        radiance = radiance + 0.6 * cv2.GaussianBlur(bright, (0, 0), max(width / 130, 1.0))
    balance = (1 + rng.normal(0, 0.025, 3)).astype(np.float32)
    gain = light.exposure * float(np.exp(rng.normal(0, 0.06)))
    image = 1 - np.exp(-radiance * (balance * np.float32(gain)))
    image = np.sqrt(np.clip(image, 0, 1)) * 0.86 + np.clip(image, 0, 1) * 0.14
    x = (np.arange(width, dtype=np.float32) - width / 2) / width
    y = (np.arange(height, dtype=np.float32) - height / 2) / width
    image *= (1 - 0.45 * (x[None, :] ** 2 + y[:, None] ** 2))[..., None]
    sigma = 0.022 if light.kind == 'night' else 0.009
    image += np.float32(sigma) * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = (np.clip(image[..., ::-1], 0, 1) * 255 + 0.5).astype(np.uint8)
    if (width, height) != (camera.width, camera.height):
        pixels = cv2.resize(pixels, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
    return pixels
