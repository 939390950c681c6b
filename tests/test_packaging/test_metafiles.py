"""model-index.yml and the metafiles that it imports: what `mim search` and the model zoo read."""

from __future__ import annotations

import pytest
import yaml


@pytest.fixture
def models(repository) -> list[dict]:
    """Every model of every metafile, with its collection's existence checked."""
    index = yaml.safe_load((repository / 'model-index.yml').read_text())
    found = []
    for path in index['Import']:
        content = yaml.safe_load((repository / path).read_text())
        names = {collection['Name'] for collection in content['Collections']}
        for collection in content['Collections']:
            for place in (collection['README'], collection['Code']['URL']):
                assert (repository / place).is_file(), f'{path}: {place}'
        assert {model['In Collection'] for model in content['Models']} <= names, path
        found += content['Models']
    return found


def test_every_config_of_users_is_listed_once(models, repository) -> None:
    """A new config without its entry fails here; ToyDrive's are for trying out, targets are no
    models."""
    listed = [model['Config'] for model in models]
    assert len(set(listed)) == len(listed)
    assert len({model['Name'] for model in models}) == len(models)
    folders = ('s3pt', 'cribo', 'dino', 'ablation', 'segmenter', 'petr')
    there = {
        str(path.relative_to(repository))
        for folder in folders
        for path in (repository / 'configs' / folder).glob('*.py')
    }
    assert set(listed) == there


def test_mim_reads_the_index(repository) -> None:
    """OpenMMLab's own reader of such files accepts ours."""
    modelindex = pytest.importorskip('modelindex.load_model_index')
    index = modelindex.load(str(repository / 'model-index.yml'))
    assert len(index.models) > 20 and {c.name for c in index.collections} >= {'S3PT', 'PETR'}
