"""The error that a bad file raises, and the policy a dataset follows when it sees one."""

from __future__ import annotations

import os


class DataError(RuntimeError):
    """Input that cannot be used.

    Args:
        path: the file (or folder) at fault.
        problem: what is wrong, with the values.
        remedy: what the user can do.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, remedy: str) -> None:
        super().__init__(str(path), problem, remedy)
        self.path = str(path)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f'{self.path}: {self.problem}. {self.remedy}.'
