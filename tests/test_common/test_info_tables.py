"""Info files as Parquet: what goes in comes out."""

from __future__ import annotations

import io

from s3pt_mm.common.info_tables import read_table, write_table


def test_samples_without_an_image_keep_their_empty_mapping():
    buffer = io.BytesIO()
    samples = [{'token': 'a', 'images': {}, 'instances': []}, {'token': 'b', 'images': {}}]
    write_table(buffer, {'info_version': '1.1'}, samples, 'x.parquet')
    buffer.seek(0)
    assert read_table(buffer)['data_list'] == samples
