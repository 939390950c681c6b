"""One page of figures from whatever runs are done: seeds with their spread, controls, classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s3pt_mm.common.files import write_json, write_text
from s3pt_mm.probes.evaluation import beside_controls
from s3pt_mm.reports.tables import to_markdown
from tools.dev.evidence.ladder import RUNGS, SUPERVISED

_PUBLISHED = """\
Published, for the order of magnitude only (quoted from S3PT's supplement; real data, ViT-S/16,
100 to 500 epochs, other protocols): nuImages mIoU with the Mask Transformer 50.04 (S3PT);
nuScenes mAP at 0-60 m .189 (DINO), .169 (CrIBo), .224 (S3PT).
"""
Figures = list[dict[str, Any]]


def write_page(out: Path) -> Path:
    """Collect ``<out>/*/*/*/*/figures.json`` and write ``page.md`` beside them."""
    runs = [json.loads(path.read_text()) for path in sorted(out.glob('*/*/*/*/figures.json'))]
    parts = ['# Evidence\n']
    for source in sorted({run['source'] for run in runs}):
        path = out / source / 'recipe.json'
        choice = json.loads(path.read_text()) if path.is_file() else None
        parts.append(_of_source(source, runs, choice))
    page = out / 'page.md'
    write_text(page, '\n'.join([*parts, _PUBLISHED]))
    return page


def beside(own: Mapping[str, Any], controls: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a run with those of its seed's controls, by source and head."""
    return {
        source: {
            head: beside_controls({**found, **controls[source][head]})
            for head, found in heads.items()
        }
        for source, heads in own.items()
    }


def mean_gain(probes: Mapping[str, Any]) -> float:
    """Points over the best control, mean of all sources and heads."""
    gains = [found['gain'] for heads in probes.values() for found in heads.values()]
    return sum(gains) / len(gains)


def write_lines(lines: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Lines of the GPU ladder as the files that :func:`write_page` collects.

    A run that was pre-trained on several data sets becomes one of each; a bound only of its own.
    """
    for line in lines:
        if line['stage'] == 'choice':
            for folder in line['sources']:
                write_json(out / folder / 'recipe.json', dict(line))
        for source, heads in line.get('probes', {}).items():
            rung, comma, own = line['rung'].partition(f'{SUPERVISED}, ')
            if comma and own != source:
                continue
            rung = SUPERVISED if comma else rung
            words = (source, line['recipe'], rung, str(line['seed']))
            folder = out.joinpath(*(''.join(c if c.isalnum() else '_' for c in w) for w in words))
            keys = ('seed', 'images', 'recipe', 'training_seconds')
            run = {key: line[key] for key in keys}
            write_json(folder / 'figures.json', dict(run, source=source, rung=rung, **heads))


def _of_source(source: str, runs: Figures, choice: Mapping[str, Any] | None) -> str:
    chosen = choice['chosen'] if choice else next(r['recipe'] for r in runs)
    shown = [r for r in runs if (r['source'], r['recipe']) == (source, chosen) and r['seed'] < 100]
    lines = [f'## {source}\n', f'Recipe: {chosen}.']
    if choice:
        gains = ', '.join(f'{name} {gain:+.1f}' for name, gain in choice['gains'].items())
        lines[-1] += f' Chosen by CrIBo on a held-out seed; points over the best control: {gains}.'
    names = dict.fromkeys((*RUNGS, *sorted(r['rung'] for r in shown if r['rung'] != SUPERVISED)))
    order = [n for n in (*names, SUPERVISED) if any(r['rung'] == n for r in shown)]
    for head, title in (('knn', 'Dense k-NN'), ('linear', 'Linear head fitted to convergence')):
        by_rung = {name: [r for r in shown if r['rung'] == name] for name in order}
        lines += ['', _overall(by_rung, head, f'{title}, place-free, mIoU in percent'), '']
        lines.append(_classes(by_rung, head, f'{title}, IoU of each class, mean over seeds'))
    logged = {name: [r.get('losses') for r in shown if r['rung'] == name] for name in order}
    logged = {name: found for name, found in logged.items() if all(found)}
    return '\n'.join([*lines, *([_losses(logged)] if logged else []), ''])


def _losses(logged: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """What the objectives came to, to be read beside the run in which only the heads learn."""
    names = dict.fromkeys(name for found in logged.values() for name in found[0])
    rows = [
        {'run': rung, **{n: spread([f[n] for f in found], 2) for n in names if n in found[0]}}
        for rung, found in logged.items()
    ]
    headings = {name: name.replace('_', ' ') for name in ('run', *names)}
    return to_markdown(rows, headings, caption='Losses over the last tenth of the steps, nats')


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean and, of several, the standard deviation over seeds."""
    deviation = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
    return f'{np.mean(values):.{digits}f}{deviation}'


def _overall(by_rung: Mapping[str, Figures], head: str, caption: str) -> str:
    rows = []
    for rung, runs in by_rung.items():
        figures = [run[head] for run in runs]
        rows.append(
            {
                'run': rung,
                'images': str(runs[0]['images']),
                'seeds': ', '.join(str(run['seed']) for run in runs),
                'mIoU': spread([f['mIoU'] for f in figures]),
                'best control': spread([f['controls'][f['best_control']]['mIoU'] for f in figures]),
                'gain': spread([f['gain'] for f in figures]),
                'worst gain': f'{min(f["gain"] for f in figures):+.1f}',
            }
        )
    for control, found in _controls(by_rung, head).items():
        rows.append({'run': f'control: {control}', 'mIoU': spread([f['mIoU'] for f in found])})
    columns = ('run', 'images', 'seeds', 'mIoU', 'best control', 'gain', 'worst gain')
    return to_markdown(rows, {name: name for name in columns}, caption=caption)


def _controls(by_rung: Mapping[str, Figures], head: str) -> dict[str, Figures]:
    """Every control, once a seed; of those that follow a network's position scale, all."""
    found: dict[str, dict[Any, dict[str, Any]]] = {}
    for rung, runs in by_rung.items():
        if rung != SUPERVISED:
            for run in runs:
                for name, figures in run[head]['controls'].items():
                    key = (run['seed'], rung if 'same' in name else '')
                    found.setdefault(name, {})[key] = figures
    return {name: list(by_key.values()) for name, by_key in found.items()}


def _classes(by_rung: Mapping[str, Figures], head: str, caption: str) -> str:
    columns = {rung: [run[head] for run in runs] for rung, runs in by_rung.items()}
    columns |= {f'control: {name}': found for name, found in _controls(by_rung, head).items()}
    if not columns:
        return ''
    names = list(next(iter(columns.values()))[0]['IoU'])
    rows = [
        {'run': column, **{name: _mean(found, name) for name in names}}
        for column, found in columns.items()
    ]
    headings = {name: name for name in ('run', *names)}
    return to_markdown(rows, headings, caption=caption, float_format='.1f')


def _mean(found: Figures, name: str) -> float:
    values = [figures['IoU'][name] for figures in found]
    return float(np.mean([np.nan if value is None else value for value in values]))
