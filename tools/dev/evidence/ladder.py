"""The rungs and the recipe: which config each run trains from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tools.dev.evidence.data import Source

ROOT = Path(__file__).resolve().parents[3]
BASE = ROOT / 'configs/toydrive/demo_s3pt_vitt16.py'
BATCH = 16


# Each rung is the one before with parts exchanged; depth leaves the model where a source has none.
def rung_parts(clusters: tuple[int, int], queue: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """What each rung sets in a model's config.

    Args:
        clusters: K of CrIBo, and from diversity on.
        queue: Images in memory, the same.
    """
    vmf = dict(type='CrIBo', head=dict(prototype_kind='vmf'), center_space='probability')
    first, last = (
        dict(num_clusters=count, sinkhorn_iterations=iterations, depth_weight=0.0)
        for count, iterations in zip(clusters, (5, 1), strict=True)
    )
    plain = dict(head=dict(prototype_kind='plain'), center_space='logit')
    few = dict(clustering=first, queue_images=queue[0])
    many = dict(clustering=last, queue_images=queue[1])
    return {
        'DINO': {},
        'DINO, equal compute': {},
        'CrIBo': dict(type='CrIBo', **plain, **few),
        '+ vMF': {**vmf, **few},
        '+ diversity': {**vmf, **many},
        '+ depth (S3PT)': {
            **vmf,
            **many,
            'type': 'S3PT',
            'clustering': {**last, 'depth_weight': 4.0},
        },
    }


# What the objective comes to when only the heads learn, on the backbone as it was initialised: a
# loss that is hardly lower with all weights learning asks the backbone for hardly anything.
HEADS_ONLY = 'CrIBo, heads only'
RUNGS = rung_parts(clusters=(8, 24), queue=(512, 64))
RUNGS[HEADS_ONLY] = RUNGS['CrIBo']
SUPERVISED = 'supervised bound'

MILD = dict(
    brightness=0.2, contrast=0.2, saturation=0.1, hue=0.03, grey_prob=0.0,
    blur_prob=(0.3, 0.0), solarize_prob=(0.0, 0.0),
)  # fmt: skip
# With published colours the targets of patch filters stay flat for hundreds of steps.
_FILTERS = {'model.backbone.stem': 'patches', 'views': dict(MILD, scale=(0.5, 1.0))}

# What may be chosen, on CrIBo and a seed that no table shows. The last is the demo's.
RECIPES: dict[str, dict[str, Any]] = {
    'as published': {**_FILTERS, 'position': 1.0},
    'patch filters held': {**_FILTERS, 'model.freeze_patch_embed': True, 'position': 1.0},
    'patch filters held, position x 10': {
        **_FILTERS,
        'model.freeze_patch_embed': True,
        'position': 10.0,
    },
    'stem, published colours': {'position': 1.0},
}


def rungs_of(source: Source) -> list[str]:
    """Rungs that can be climbed on a data set."""
    return [name for name in RUNGS if source.has_depth or 'depth' not in name]


def dino_share(tokens: int = 64, local_crops: int = 4, local_tokens: int = 16) -> float:
    """Images that DINO sees in the time in which CrIBo sees one, by tokens through the ViT.

    Both teachers encode two global views. A student's token costs three of a teacher's (forward
    and twice that backward); DINO's student also encodes the local crops.
    """
    cribo = 2 * tokens * (1 + 3)
    return cribo / (cribo + 3 * local_crops * local_tokens)


def images_of(rung: str, images: int) -> int:
    """Images that a rung sees where the others see ``images``."""
    return round(images * dino_share()) if rung == 'DINO, equal compute' else images


def make_config(
    source: Source, rung: str, *, seed: int, images: int, recipe: Mapping[str, Any]
) -> Config:
    """The pre-training config of one run.

    Args:
        source: Data set.
        rung: A name of ``RUNGS``.
        seed: Of initialisation and data order.
        images: Images seen, repetitions counted.
        recipe: A value of ``RECIPES``.
    """
    cfg = Config.fromfile(BASE, import_custom_modules=False)
    views = next(step for step in cfg.train_pipeline if step['type'] == 'TwoViews')
    views.update(recipe.get('views', {}))
    pipeline = [step for step in cfg.train_pipeline if source.has_depth or step.type != 'LoadLidar']
    if rung.startswith('DINO'):
        dino = Config.fromfile(
            ROOT / 'configs/toydrive/dino_vitt16.py', import_custom_modules=False
        )
        head = {k: v for k, v in dino.model.head.items() if not k.startswith('_')}
        shared = ('num_prototypes', 'bottleneck_channels', 'init', 'batch_norm')
        head.update({key: cfg.model.head[key] for key in shared if key in cfg.model.head})
        cfg.model = dict(type='S3PTDINO', backbone=cfg.model.backbone, head=head)
        crops = next(step for step in dino.train_pipeline if step['type'] == 'MultiCropViews')
        colours = {k: v for k, v in views.items() if k not in ('type', 'size', 'blur_prob')}
        crops.update(colours)
        pipeline = [
            crops if step.type == 'TwoViews' else step
            for step in pipeline
            if step.type not in ('LoadLidar', 'TokenGeometry')
        ]
    else:
        cfg.merge_from_dict(dict(model=dict(RUNGS[rung])))
    keys = {'backbone.pos_embed': dict(lr_mult=recipe['position'])}
    if rung == HEADS_ONLY:
        keys = {'backbone': dict(lr_mult=0.0)}
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=keys)
    cfg.merge_from_dict({key: value for key, value in recipe.items() if '.' in key})
    cfg.train_dataloader.dataset = dict(source.pretraining, pipeline=pipeline)
    cfg.train_dataloader.batch_size = BATCH
    cfg.train_dataloader.sampler.seed = seed
    cfg.randomness = dict(seed=seed)
    _schedule(cfg, images, source)
    return cfg


def _schedule(cfg: Config, images: int, source: Source) -> None:
    """Stretch the demo's schedule over so many images."""
    iterations = _length(source) // BATCH
    if not iterations:
        raise SystemExit(f'{source.name} has {_length(source)} images, a batch {BATCH}.')
    epochs = math.ceil(images / (iterations * BATCH))
    # A ramp has two ends: two iterations at least.
    warm = max(1 if iterations > 1 else 2, round(0.1 * epochs))
    epochs = max(epochs, warm + 2)
    warming, cooling = cfg.param_scheduler
    warming.update(end=warm)
    cooling.update(begin=warm, end=epochs, T_max=epochs - warm)
    cfg.epochs = cfg.train_cfg.max_epochs = epochs  # the first is what the launcher follows
    hooks = cfg.default_hooks
    hooks.pop('knn_probe')  # probed once, at the end, with every head
    hooks.last_layer_freeze.epochs = max(1, epochs // 5)
    hooks.checkpoint.update(interval=max(1, epochs // 4), max_keep_ckpts=1)


def _length(source: Source) -> int:
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import DATASETS

    from s3pt_mm.data import datasets  # noqa: F401 - registers them

    init_default_scope('mmpretrain')
    return len(DATASETS.build(dict(source.pretraining, pipeline=[])))
