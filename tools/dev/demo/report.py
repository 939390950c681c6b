"""One self-contained HTML page of a demo run."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
img { max-width: 100%; height: auto; } table { border-collapse: collapse; }
td, th { padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; } .note { color: #666; }
"""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence that says what to look for, and a picture."""

    title: str
    text: str
    picture: Path


def class_table(last: Mapping[str, Any]) -> str:
    """IoU (percent) of each class, of the trained network and of its controls, as an HTML table.

    Args:
        last: A point of the probe's history.
    """
    columns = {'trained teacher': last, **last['controls']}
    head = ''.join(f'<th>{html.escape(name)}</th>' for name in ('class', *columns))
    lines = {name: [found['IoU'][name] for found in columns.values()] for name in last['IoU']}
    lines['mean'] = [found['mIoU'] for found in columns.values()]
    rows = ''.join(
        f'<tr><td>{html.escape(name)}</td>'
        + ''.join(f'<td>{value:.1f}</td>' for value in values)
        + '</tr>'
        for name, values in lines.items()
    )
    return f'<table><tr>{head}</tr>{rows}</table>'


def write_report(
    path: Path, *, title: str, facts: Mapping[str, str], table: str, sections: Sequence[Section]
) -> Path:
    """Write the page; pictures are embedded, so that the one file can be sent to somebody.

    Args:
        path: The HTML file.
        title: Heading of the page.
        facts: Name -> value, shown as a list on top.
        table: HTML of the table of results.
        sections: Pictures in order.
    """
    facts_html = ''.join(
        f'<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    parts = []
    for section in sections:
        data = base64.b64encode(section.picture.read_bytes()).decode()
        parts.append(
            f'<h2>{html.escape(section.title)}</h2><p class="note">{html.escape(section.text)}</p>'
            f'<img alt="{html.escape(section.title)}" src="data:image/png;base64,{data}">'
        )
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<style>{_STYLE}</style><h1>{html.escape(title)}</h1><table>{facts_html}</table>'
        f'<h2>Place-free k-NN IoU beside its controls, %</h2>{table}{"".join(parts)}</html>',
        encoding='utf-8',
    )
    return path
