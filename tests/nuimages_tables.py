"""nuImages tables with the true layout, a few pixels each."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from s3pt_mm.data.class_sets import NUIMAGES_CATEGORIES

HEIGHT, WIDTH = 36, 64


def run_length(mask: np.ndarray) -> dict:
    """The devkit's encoding: COCO run lengths, base64 of their bytes."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=list(mask.shape), counts=base64.b64encode(encoded['counts']).decode())


def write_nuimages(
    root: Path, version: str, images: int, seed: int, categories=NUIMAGES_CATEGORIES
) -> None:
    """Random rectangles of random categories; some annotations without a mask, one a sweep."""
    random = np.random.default_rng(seed)
    names = list(categories)
    random.shuffle(names)
    tables = dict(category=[dict(token=f'c{i}', name=n) for i, n in enumerate(names)])
    tables |= {name: [] for name in ('sample_data', 'surface_ann', 'object_ann', 'sample', 'log')}
    tables |= {name: [] for name in ('attribute', 'calibrated_sensor', 'ego_pose', 'sensor')}
    token_of = {row['name']: row['token'] for row in tables['category']}
    surfaces = ('flat.driveable_surface', 'vehicle.ego')
    for number in range(images + 1):
        key_frame = number < images
        token, filename = f'{version}{number}', f'samples/CAM_FRONT/{version}_{number}.jpg'
        tables['sample_data'].append(
            dict(token=token, filename=filename, is_key_frame=key_frame, fileformat='jpg')
        )
        (root / filename).parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / filename)
        for kind, count in (('surface_ann', 2), ('object_ann', 9)) if key_frame else ():
            for _ in range(count):
                mask = np.zeros((HEIGHT, WIDTH), bool)
                y, x = random.integers(0, HEIGHT - 4), random.integers(0, WIDTH - 4)
                mask[y : y + random.integers(3, 20), x : x + random.integers(3, 30)] = True
                pool = surfaces if kind == 'surface_ann' else set(names) - set(surfaces)
                name = random.choice(sorted(set(pool) & set(names)))
                tables[kind].append(
                    dict(
                        token=f'{random.integers(1 << 40):x}',
                        sample_data_token=token,
                        category_token=token_of[name],
                        mask=run_length(mask) if random.random() < 0.9 else None,
                    )
                )
        random.shuffle(tables['object_ann'])
    (root / version).mkdir(parents=True)
    for name, rows in tables.items():
        (root / version / f'{name}.json').write_text(json.dumps(rows))
