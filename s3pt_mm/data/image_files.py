"""Which files below a folder are images, and which of those are label masks. Opens few of them."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import PurePosixPath

import numpy as np

from s3pt_mm.common.errors import DataError

SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.webp', '.avif', '.gif'),
    *('.tif', '.tiff', '.ppm', '.pgm', '.jp2'),
)
#: Folders that operating systems, storage boxes and archivers make, lower case.
GENERATED = frozenset(
    ('@eadir', '#recycle', '#snapshot', '__macosx', '$recycle.bin', 'lost+found')
    + ('system volume information', '__pycache__')
)
#: Endings of files that may be masks: those that keep a label's exact value.
_LOSSLESS = ('.png', '.bmp', '.gif', '.tif', '.tiff', '.webp')
_MASK_VALUES, _MASK_FLATNESS = 64, 0.8


@dataclass
class FoundImages:
    """Images below a folder.

    Attributes:
        paths: Relative to the folder, sorted.
        left_out: Number of files by reason.
        unused: Patterns that no file fits.
    """

    paths: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """``12 images; left out: 3 hidden``."""
        text = f'{len(self.paths)} images'
        if self.left_out:
            text += '; left out: ' + ', '.join(f'{n} {why}' for why, n in self.left_out.items())
        if self.unused:
            text += f'; no file fits {", ".join(self.unused)}'
        return text


def find_images(
    root: str | os.PathLike[str],
    *,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    suffixes: tuple[str, ...] = SUFFIXES,
    hidden: bool = False,
) -> FoundImages:
    """All images below a folder; links to files and folders count, each folder once.

    Args:
        root: The folder.
        include: Glob patterns of paths below ``root`` with ``/``, where ``*`` stands for any text,
            ``/`` too: ``'*_L.png'``, ``'front/*'``. Default: all.
        exclude: Patterns of what to leave out of them.
        suffixes: Endings of images, lower case.
        hidden: Also what lies in hidden folders (``.name``) and :data:`GENERATED` ones.

    Raises:
        DataError: A folder is missing or may not be read.
    """
    found, endings, wanted = FoundImages(), Counter(), []
    for path, is_hidden, is_file in _files(os.fspath(root)):
        if not is_file:
            found.left_out['pipes, sockets or devices'] += 1
        elif not path.lower().endswith(suffixes):
            # Other files of hidden folders are nobody's images.
            endings.update([] if is_hidden else [os.path.splitext(path)[1].lower() or 'no ending'])
        elif is_hidden and not hidden:
            found.left_out['hidden or in generated folders'] += 1
        else:
            wanted.append(path)
    if endings:
        most = ', '.join(ending for ending, _ in endings.most_common(4))
        found.left_out[f'of other endings ({most})'] = endings.total()
    found.paths = choose(sorted(wanted), include, exclude, found)
    return found


def choose(
    paths: Sequence[str],
    include: str | Sequence[str],
    exclude: str | Sequence[str],
    found: FoundImages,
) -> list[str]:
    """The paths that fit ``include`` and not ``exclude``; what that means goes to ``found``."""
    for patterns, keep, why in ((include, True, 'not in include'), (exclude, False, 'by exclude')):
        patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        if patterns:
            fits = {pattern: set(filter(re.compile(translate(pattern)).match, paths))
                    for pattern in patterns}  # fmt: skip
            found.unused += [pattern for pattern, fitting in fits.items() if not fitting]
            fitting = set().union(*fits.values())
            kept = [path for path in paths if (path in fitting) == keep]
            if len(kept) < len(paths):
                found.left_out[why] = len(paths) - len(kept)
            paths = kept
    return list(paths)


def _files(root: str) -> Iterable[tuple[str, bool, bool]]:
    """(path below the root, whether it is hidden, whether it is a file or a link that leads
    nowhere) of everything but folders, each real folder once.

    Real folders come before links to folders, so that a file keeps its own name on every disk.
    """
    folders, links, visited = [('', False)], [], set()
    while folders or links:
        if not folders:
            links.sort()
            folders.append(links.pop(0))
        below, is_hidden = folders.pop()
        folder = os.path.join(root, below) if below else root
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    here = (
                        os.path.join(below, entry.name),
                        is_hidden or entry.name[0] == '.' or entry.name.lower() in GENERATED,
                    )
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(here)
                    elif entry.is_symlink() and os.path.isdir(entry.path):
                        links.append(here)
                    else:
                        yield *here, entry.is_file() or not os.path.exists(entry.path)
        except OSError as error:
            problem = 'no such folder' if isinstance(error, FileNotFoundError) else error.strerror
            remedy = 'Check the path and its permissions'
            raise DataError(folder, str(problem), remedy) from error


def looks_like_mask(pixels: np.ndarray) -> bool:
    """Whether pixels are a label mask's: few values, in areas.

    Args:
        pixels: (H, W, 3) uint8 of a file that is no JPEG.
    """
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / 2**18) ** 0.5))
    rows = pixels[::step].astype(np.uint32)
    values = rows[..., 0] << 16 | rows[..., 1] << 8 | rows[..., 2]
    if values.shape[1] < 2 or (values[:, 1:] == values[:, :-1]).mean() < _MASK_FLATNESS:
        return False
    return len(np.unique(values[:, ::step])) <= _MASK_VALUES


def mask_candidates(paths: Sequence[str], most: int = 24) -> dict[str, list[str]]:
    """Groups of files that are likely of one kind, a file of each, where they may be masks.

    Args:
        paths: Below the folder.
        most: Groups at most, evenly spread.

    Returns:
        By the file to look at, all files of its group.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in paths:
        if path.lower().endswith(_LOSSLESS):
            groups[os.path.dirname(path), _tail(path)].append(path)
    chosen = [groups[key] for key in sorted(groups)]
    if len(chosen) > most:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, most).round().astype(int)]
    return {members[len(members) // 2]: members for members in chosen}


def mask_patterns(masks: Iterable[str], others: Iterable[str]) -> list[str]:
    """Few ``exclude`` patterns that name all masks and none of the other files, as far as any do.

    Args:
        masks: Paths below the folder.
        others: Paths of what is to stay.
    """
    others = set(others)
    left = set(masks) - others
    tails = {_tail(path) for path in others}
    patterns = sorted({f'*{_tail(p)}' for p in left if '_' in _tail(p)} - {f'*{t}' for t in tails})
    left -= {path for path in left if f'*{_tail(path)}' in patterns}
    kept = {str(folder) for path in others for folder in PurePosixPath(path).parents}
    folders = set()
    for path in left:
        # The highest folder above it that holds nothing else.
        free = [str(f) for f in PurePosixPath(path).parents if str(f) not in kept | {'.'}]
        folders.add(f'{free[-1]}/*' if free else path)
    return patterns + sorted(folders)


def _tail(path: str) -> str:
    """``_L.png`` of ``a/0001_L.png``; ``.png`` where the last part is a number or the whole."""
    stem, ending = os.path.splitext(os.path.basename(path))
    head, separator, last = stem.rpartition('_')
    return f'_{last}{ending}' if head and separator and last.isalpha() else ending
