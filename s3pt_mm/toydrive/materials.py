"""Materials and the palette that all classes share."""

from __future__ import annotations

import colorsys

import numpy as np

from s3pt_mm.toydrive import taxonomy as tx

# Kinds of surface; shading.py has one function for each.
PLAIN, FACADE, STRIPES, PATCHES, FOLIAGE, GLASS, LAMP, GROUND, BRICKS = range(9)

# Columns of a material's row.
RGB1, RGB2, KIND, SCALE, A, B, GLOSS, GLOW, LABEL, SALT = (
    slice(0, 3), slice(3, 6), 6, 7, 8, 9, 10, 11, 12, 13,
)  # fmt: skip
_WIDTH = 14


def draw_palette(rng: np.random.Generator, size: int = 28) -> np.ndarray:
    """Colours (size, 3), linear light, that objects of every class and buildings draw from.

    Half are greys and muted tones as on real streets, half are saturated. No class has a colour
    of its own: colour alone must not tell a cone from a coat.
    """
    colours = []
    for i in range(size):
        hue, value = rng.uniform(), rng.uniform(0.12, 0.95)
        saturation = rng.uniform(0.0, 0.25) if i % 2 else rng.uniform(0.35, 0.9)
        colours.append(colorsys.hsv_to_rgb(hue, saturation, value))
    return np.asarray(colours) ** 2.2


class Materials:
    """Table of materials; a material's number is its row.

    Args:
        rng: Source of all colours.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.palette = draw_palette(rng)
        self.rng = rng
        self._rows: list[np.ndarray] = []

    def colour(self) -> np.ndarray:
        """One colour of the shared palette, slightly varied."""
        base = self.palette[self.rng.integers(len(self.palette))]
        return np.clip(base * self.rng.uniform(0.8, 1.2), 0.005, 0.95)

    def add(
        self,
        label: int,
        *,
        rgb: np.ndarray | tuple[float, float, float] | None = None,
        rgb2: np.ndarray | tuple[float, float, float] | None = None,
        kind: int = PLAIN,
        scale: float = 1.0,
        a: float = 0.0,
        b: float = 0.0,
        gloss: float = 0.0,
        glow: float = 0.0,
    ) -> int:
        """Add a material and return its number.

        Args:
            label: Cityscapes label number of what is made of it.
            rgb: First colour (linear light); drawn from the palette where None.
            rgb2: Second colour (stripes, window glass ...); drawn where None.
            kind: One of this module's kinds.
            scale: Period of the texture in metres.
            a: First parameter of the kind.
            b: Second parameter of the kind.
            gloss: Share of sky reflection.
            glow: Light given off at night, relative to white paper in the sun.
        """
        row = np.zeros(_WIDTH)
        row[RGB1] = self.colour() if rgb is None else rgb
        row[RGB2] = self.colour() if rgb2 is None else rgb2
        row[KIND], row[SCALE], row[A], row[B] = kind, scale, a, b
        row[GLOSS], row[GLOW], row[LABEL] = gloss, glow, label
        row[SALT] = self.rng.uniform(0, 97.0)
        self._rows.append(row)
        return len(self._rows) - 1

    # Frequent ones, each drawn anew so that no two objects are quite alike. ------------------

    def paint(self, label: int) -> int:
        """Coachwork, cloth, plastic: one palette colour, or two in stripes or patches."""
        kind = self.rng.choice([PLAIN, PLAIN, PLAIN, STRIPES, PATCHES])
        return self.add(
            label,
            kind=int(kind),
            scale=self.rng.uniform(0.25, 1.4),
            a=self.rng.uniform(0, np.pi),
            b=self.rng.uniform(0.3, 0.7),
            gloss=self.rng.uniform(0.0, 0.25),
        )

    def stripes(self, label: int, period: float) -> int:
        """Two palette colours in bands of ``period`` metres."""
        return self.add(
            label, kind=STRIPES, scale=period, a=self.rng.uniform(0, np.pi), b=0.5, gloss=0.05
        )

    def dark(self, label: int) -> int:
        """Rubber, plastic and shadowed gaps."""
        grey = self.rng.uniform(0.01, 0.06)
        return self.add(label, rgb=(grey, grey, grey), gloss=0.03)

    def metal(self, label: int) -> int:
        """Bare metal."""
        grey = self.rng.uniform(0.15, 0.5)
        return self.add(label, rgb=(grey, grey, grey * 1.03), gloss=0.25)

    def glass(self, label: int) -> int:
        """Window panes: dark, mirroring the sky."""
        tint = self.rng.uniform(0.02, 0.08, 3)
        return self.add(label, rgb=tint, kind=GLASS, gloss=self.rng.uniform(0.35, 0.7))

    def lamp(self, label: int, rgb: tuple[float, float, float], glow: float) -> int:
        """A light, glowing at night."""
        return self.add(label, rgb=rgb, kind=LAMP, gloss=0.2, glow=glow)

    def skin(self, label: int) -> int:
        """Faces and hands."""
        tone = self.rng.uniform(0.25, 1.0)
        return self.add(label, rgb=np.array([0.62, 0.42, 0.32]) * tone)

    def table(self) -> np.ndarray:
        """All rows, (M, 14) float32."""
        return np.asarray(self._rows, dtype=np.float32)


def object_label(category: str) -> int:
    """Cityscapes label of a nuScenes category."""
    return tx.CITYSCAPES_LABEL[category]
