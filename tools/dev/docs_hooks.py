"""What mkdocs does before it builds a page: the model zoo out of the metafiles, pages by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def zoo(root: Path = ROOT) -> str:
    """Markdown tables of all models of ``model-index.yml``, one a collection."""
    parts = []
    for name in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        content = yaml.safe_load((root / name).read_text())
        for collection in content['Collections']:
            title, paper = collection['Name'], collection.get('Paper') or {}
            parts.append(f'## {title}\n')
            if paper:
                parts.append(f'[{paper["Title"]}]({paper["URL"]})\n')
            parts.append('| config | trained on | measured here |\n| --- | --- | --- |')
            for model in content['Models']:
                if model['In Collection'] == title:
                    data = (model.get('Metadata') or {}).get('Training Data', '-')
                    results = model.get('Results') or []
                    measured = '; '.join(
                        f'{key} {value}' for row in results for key, value in row['Metrics'].items()
                    )
                    parts.append(f'| `{model["Config"]}` | {data} | {measured or "not yet"} |')
            parts.append('')
    return '\n'.join(parts)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the place of the model zoo."""
    return markdown.replace('<!-- model zoo -->', zoo())
