"""Images that are there twice: the same bytes, or nearly the same picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

_COARSE, _FINE = 8, 16
_BANDS = 4  # of the coarse hash: two that differ in fewer bits agree in one of them
_NEAR_BITS = 20  # of the fine hash's 256; docs/data.md has what that finds
_REACH = 1000  # pictures of one band that each is compared with: bounds the time, not the rest
_ONES = np.array([bin(byte).count('1') for byte in range(256)], dtype=np.uint8)


def content_hash(data: bytes) -> str:
    """32 hexadecimal digits of a file's bytes."""
    return blake2b(data, digest_size=16).hexdigest()


def look_hash(pixels: np.ndarray) -> str:
    """What a picture looks like: whether each cell of a grid is brighter than its left neighbour.

    The difference hash of Krawetz (2013) at two sizes.

    Args:
        pixels: (H, W, 3) uint8.

    Returns:
        80 hexadecimal digits: 64 bits of a grid of 8 x 8, 256 of one of 16 x 16.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    bits = []
    for side in (_COARSE, _FINE):
        cells = cv2.resize(grey, (side + 1, side), interpolation=cv2.INTER_AREA)
        bits.append(np.packbits(cells[:, 1:] > cells[:, :-1]))
    return np.concatenate(bits).tobytes().hex()


def same_groups(hashes: Sequence[str]) -> list[list[int]]:
    """Positions of equal hashes, of two or more, in order."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, content in enumerate(hashes):
        places[content].append(place)
    return [group for group in places.values() if len(group) > 1]


def near_groups(looks: Sequence[str]) -> list[list[int]]:
    """Positions of pictures that look alike, directly or through others, in order.

    Pairs differ in at most three bits of the coarse hash and 20 of the fine one.

    Args:
        looks: Of :func:`look_hash`.
    """
    if not looks:
        return []
    unique, inverse = np.unique(np.array(looks), return_inverse=True)
    rows = np.frombuffer(bytes.fromhex(''.join(unique.tolist())), np.uint8).reshape(len(unique), -1)
    bands, pairs = rows[:, : 2 * _BANDS].copy().view(np.uint16), []
    for band in bands.T:
        order = np.argsort(band, kind='stable')
        values, first, step = band[order], np.arange(len(order)), 0
        while len(first) and step < _REACH:
            step += 1
            first = first[first < len(order) - step]
            first = first[values[first] == values[first + step]]
            for part in np.array_split(first, max(1, len(first) // 2**16)):
                one, other = order[part], order[part + step]
                differing = _ONES[rows[one] ^ rows[other]]
                near = (differing[:, :8].sum(1) < _BANDS) & (differing[:, 8:].sum(1) <= _NEAR_BITS)
                pairs.append(np.stack([one[near], other[near]]))
    one, other = np.concatenate(pairs, axis=1)
    graph = coo_matrix((np.ones(len(one)), (one, other)), shape=(len(unique),) * 2)
    _, component = connected_components(graph, directed=False)
    return same_groups([str(number) for number in component[inverse.ravel()]])
