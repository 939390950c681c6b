"""Every mapping file, and the rules that a mapping must keep."""

import pytest

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.class_mappings import MAPPINGS, ClassMapping, load_mapping
from s3pt_mm.data.class_sets import CITYSCAPES_19, NUIMAGES_13


def test_the_pairs_of_the_protocol_exist():
    assert set(MAPPINGS) >= {
        'nuimages_to_cityscapes', 'cityscapes_to_nuimages', 'cityscapes_to_acdc',
        'cityscapes_to_dark_zurich', 'cityscapes_to_foggy_cityscapes',
        'cityscapes_to_foggy_driving', 'cityscapes_to_night_driving', 'toydrive_day_to_night',
        'toydrive_day_to_fog',
    }  # fmt: skip


@pytest.mark.parametrize('name', sorted(MAPPINGS))
def test_mapping_sends_each_class_where_its_name_says(name):
    mapping = load_mapping(name)
    for side, class_set in (('source', mapping.source), ('target', mapping.target)):
        table = mapping.lookup_table(side, missing=255)
        for label, class_name in enumerate(class_set.classes):
            # A class that both sides call alike must meet itself.
            if class_name in mapping.classes:
                assert mapping.classes[table[label]] == class_name
        assert (table[len(class_set.classes) :] == 255).all()
        assert set(range(len(mapping.classes))) <= set(table.tolist())


def test_nuimages_to_cityscapes_by_hand():
    mapping = load_mapping('nuimages_to_cityscapes')
    source = mapping.lookup_table('source', missing=99)
    target = mapping.lookup_table('target', missing=255)

    def meet(nuimages, cityscapes):
        return (
            source[NUIMAGES_13.classes.index(nuimages)]
            == target[CITYSCAPES_19.classes.index(cityscapes)]
        )

    assert meet('driveable surface', 'road') and meet('pedestrian', 'person')
    assert meet('background', 'sky') and meet('background', 'sidewalk')
    assert not meet('driveable surface', 'sidewalk') and not meet('car', 'truck')
    assert target[CITYSCAPES_19.classes.index('rider')] == 255
    assert source[NUIMAGES_13.classes.index('barrier')] == 99


def test_both_directions_share_the_same_classes():
    there, back = load_mapping('nuimages_to_cityscapes'), load_mapping('cityscapes_to_nuimages')
    assert there.classes == back.classes
    for side, other in (('source', 'target'), ('target', 'source')):
        one, two = there.lookup_table(side, missing=255), back.lookup_table(other, missing=255)
        assert one.tolist() == two.tolist()


@pytest.mark.parametrize(
    'shared, message',
    [
        ({'lorry': (('lorry',), ('truck',))}, "no such class \\['lorry'\\]"),
        ({'a': (('car',), ('car',)), 'b': (('car',), ('bus',))}, "used twice \\['car'\\]"),
        ({'car': ((), ('car',))}, "without a member on both sides: \\['car'\\]"),
        ({}, 'without a member'),
    ],
)
def test_a_wrong_mapping_is_refused(shared, message):
    with pytest.raises(ValueError, match=message):
        ClassMapping(NUIMAGES_13, CITYSCAPES_19, shared)


def test_an_unknown_pair_lists_those_there_are():
    with pytest.raises(ValueError, match='moon.*cityscapes_to_acdc'):
        load_mapping('cityscapes_to_moon')


MINE = """
source: mine.yaml
target: cityscapes19
shared:
  road: [road, road]
  vehicle: [car, [car, truck]]
"""


def test_a_file_maps_own_classes(tmp_path):
    (tmp_path / 'mine.yaml').write_text('[sky, road, car]')
    (tmp_path / 'mapping.yaml').write_text(MINE)
    mapping = load_mapping(str(tmp_path / 'mapping.yaml'))
    assert mapping.classes == ('road', 'vehicle')
    assert mapping.lookup_table('source', missing=9)[:4].tolist() == [9, 0, 1, 9]
    cityscapes = mapping.lookup_table('target', missing=9)
    assert (cityscapes[0], cityscapes[13], cityscapes[14], cityscapes[1]) == (0, 1, 1, 9)
    (tmp_path / 'same.yaml').write_text('source: mine.yaml')
    assert load_mapping(str(tmp_path / 'same.yaml')).classes == ('sky', 'road', 'car')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[1, 2]', 'a mapping has source'),
        ('source: absent.yaml', 'absent.yaml: cannot be read'),
        ('source: cityscape', "no class set 'cityscape'.*cityscapes19"),
        ('{source: cityscapes19, shared: {a: road}}', "a is 'road', not"),
        ('{source: cityscapes19, shared: {a: [lorry, road]}}', 'lorry'),
        ('{source: cityscapes19, shared: [a]}', "'shared' is no mapping"),
        ('{source: cityscapes19, taget: x}', 'a mapping has source'),
        ('source: [', 'no class mapping'),
    ],
)
def test_a_bad_mapping_file_is_named(tmp_path, text, message):
    (tmp_path / 'mapping.yaml').write_text(text)
    with pytest.raises(DataError, match=message):
        load_mapping(str(tmp_path / 'mapping.yaml'))
