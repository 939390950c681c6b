"""Code that the docs print, run as printed."""

from __future__ import annotations

import argparse
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.registry import DATASETS, MODELS

from s3pt_mm.data.class_mappings import MAPPINGS, load_mapping
from s3pt_mm.data.formats import FORMATS
from s3pt_mm.method.clustering import ClusteringConfig, cluster_joint_views
from tests.nuscenes_tables import write_jpeg
from tests.test_reliability.rank_training import batch_of, tiny_model


def code_of(page: Path, language: str = 'python') -> list[str]:
    """Fenced blocks of a language, in order."""
    return re.findall(rf'```{language}\n(.*?)```', page.read_text(), re.S)


def run_page(repository: Path, name: str, block: int = 0) -> dict:
    """Names that a page's block of code defines, run as a module of its own."""
    module = types.ModuleType(f'page_{name}')
    sys.modules[module.__name__] = module  # classes look their module up
    exec(code_of(repository / 'docs' / f'{name}.md')[block], module.__dict__)
    return module.__dict__


@pytest.fixture(autouse=True)
def _registries_forget() -> Iterator[None]:
    """What a page registers ends with its test."""
    before = [(registry, dict(registry._module_dict)) for registry in (MODELS, DATASETS)]
    yield
    for registry, modules in before:
        registry._module_dict.clear()
        registry._module_dict.update(modules)


def test_add_a_method(repository):
    """Both terms teach the student, and the teacher's step moves both centres."""
    run_page(repository, 'add_a_method')
    model = tiny_model('S3PTDINO', type='PatchDINO', head={'with_objects': True})
    losses = model.loss(**batch_of(0, range(4), crops=2))
    assert {'loss_image', 'loss_patch'} <= losses.keys()
    (losses['loss_image'] + losses['loss_patch']).backward()
    prototypes = model.student['head'].object_prototypes.parameters()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in prototypes)
    assert model.patch_center.value.abs().max() == 0
    model.update_teacher(0.9)
    assert model.patch_center.value.abs().max() > 0


def test_add_a_cost_term(repository):
    """With a weight that drowns the others, clusters are stripes; with none, CrIBo's."""
    page = run_page(repository, 'add_a_cost_term')
    torch.manual_seed(0)
    tokens, xy = torch.randn(1, 32, 8), 100 * torch.rand(1, 32, 2)
    config = ClusteringConfig(num_clusters=4)
    first = torch.tensor([[0, 1, 2, 3]])
    spreads = []
    for weight in (0.0, 50.0):
        terms = [page['HeightTerm'](xy, 4, weight)]
        labels = cluster_joint_views(tokens, xy, first, config, extra_terms=terms).labels
        heights = [xy[0, labels[0] == k, 1] for k in labels.unique()]
        spreads.append(float(torch.cat([h - h.mean() for h in heights]).std()))
    assert spreads[1] < spreads[0] / 2
    plain = cluster_joint_views(tokens, xy, first, config).labels
    terms = [page['HeightTerm'](xy, 4, 0.0)]
    assert cluster_joint_views(tokens, xy, first, config, extra_terms=terms).labels.equal(plain)


def test_add_a_cost_term_as_a_method(repository):
    run_page(repository, 'add_a_cost_term')
    losses = tiny_model('CrIBoWithHeight').loss(**batch_of(0, range(2), crops=2))
    assert torch.isfinite(losses['loss_cross_view'])


def test_add_a_class_mapping(repository, monkeypatch):
    monkeypatch.setattr('s3pt_mm.data.class_mappings.MAPPINGS', dict(MAPPINGS))
    run_page(repository, 'add_a_class_mapping')
    mapping = load_mapping('cityscapes_to_nuimages_traffic')
    assert mapping.classes == ('four wheels', 'two wheels', 'person')


def test_add_a_data_set(repository, tmp_path):
    dataset = run_page(repository, 'add_a_data_set')['EveryTenthImage']
    (tmp_path / 'list.txt').write_text(''.join(f'{i}.jpg\n' for i in range(25)))
    items = dataset(ann_file=str(tmp_path / 'list.txt'))
    assert [items.get_data_info(i)['img_path'] for i in range(3)] == ['0.jpg', '10.jpg', '20.jpg']


def test_add_a_format(repository, tmp_path, monkeypatch):
    monkeypatch.setattr('s3pt_mm.data.formats.FORMATS', dict(FORMATS))
    names: dict = {'__name__': 'page'}
    exec(code_of(repository / 'docs' / 'add_a_format.md')[0], names)
    write_jpeg(tmp_path / 'front_12.5.jpg', 0, 320, 180)
    log = names['DashCam'](tmp_path, argparse.Namespace(focal=800.0))
    (sample,) = log.samples()
    assert sample.timestamp == 12.5
    assert np.shape(sample.images['front'].cam2img) == (3, 3)
