"""Deliberate faults of a source file: mutmut's operators and three of our own.

mutmut's own runner passes over decorated functions (the clustering is one, under
``torch.no_grad``), leaves out no statement, and alters messages more than anything; so only its
operators are used here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

_SPOKEN = m.OneOf(*(m.Attribute(attr=m.Name(level)) for level in ('info', 'warning', 'error')))
_LOG = m.Call(func=m.OneOf(m.Name('print_log'), m.Attribute(attr=m.Name('warn')), _SPOKEN))
# Words for people, types, what runs while a module is read.
_SKIPPED = m.OneOf(m.Raise(), m.Annotation(), m.Decorator(), m.Import(), m.ImportFrom(), _LOG)
_NO_MATTER = ('device', 'non_blocking', 'encoding', 'logger', 'level')  # not on a CPU, not in ASCII
_STATEMENT = m.OneOf(m.Expr(m.Call()), m.AugAssign(), m.Raise(), m.Continue())
_STATE = m.Assign(targets=[m.AssignTarget(m.OneOf(m.Attribute(), m.Subscript()))])


def _leave_out(node: cst.SimpleStatementLine) -> Iterator[cst.CSTNode]:
    """Calls for their effect, changes of state and errors become ``pass``."""
    statement = node.body[0]
    if m.matches(statement, m.OneOf(_STATEMENT, _STATE)) and not m.matches(statement, m.Expr(_LOG)):
        yield node.with_changes(body=[cst.Pass()])


def _decide(node: cst.If) -> Iterator[cst.CSTNode]:
    for answer in ('True', 'False'):
        yield node.with_changes(test=cst.Name(answer))


def _drop_keyword(node: cst.Call) -> Iterator[cst.CSTNode]:
    for index, argument in enumerate(node.args):
        if argument.keyword is not None and argument.keyword.value not in _NO_MATTER:
            yield node.with_changes(args=[*node.args[:index], *node.args[index + 1 :]])


OPERATORS: tuple[tuple[type, Callable[..., Iterator[cst.CSTNode]]], ...] = (
    (cst.BaseNumber, mutators.operator_number),
    (cst.Name, mutators.operator_name),
    (cst.AugAssign, mutators.operator_augmented_assignment),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.IfExp, mutators.operator_if_exp),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.CSTNode, mutators.operator_swap_op),
    (cst.SimpleStatementLine, _leave_out),
    (cst.If, _decide),
    (cst.Call, _drop_keyword),
)


@dataclass(frozen=True)
class Fault:
    """One file with one fault.

    Attributes:
        path: Of the file, within the repository.
        line: Where the changed code begins.
        before: The code there, and
        after: what it becomes.
        key: Names the fault for as long as the file stays the same.
        source: Makes the whole file with the fault.
    """

    path: str
    line: int
    before: str
    after: str
    key: str
    source: Callable[[], str]


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, m.SimpleStatementLine()) or not m.matches(node, _SKIPPED):
            line = self.get_metadata(PositionProvider, node, None)
            for kind, operator in OPERATORS if line else ():
                if isinstance(node, kind):
                    self.found += [(line.start.line, node, new) for new in operator(node)]
            return True
        return False


def faults_of(root: Path, path: str) -> list[Fault]:
    """All faults of one file, in the order of its lines."""
    code = (root / path).read_text(encoding='utf-8')
    version = hashlib.sha256(code.encode()).hexdigest()[:12]
    wrapper = MetadataWrapper(cst.parse_module(code))
    finder = _Finder()
    wrapper.visit(finder)
    module, made = wrapper.module, []
    for number, (line, old, new) in enumerate(finder.found):
        before, after = (_one_line(module.code_for_node(node)) for node in (old, new))
        key = f'{path}:{line}:{version}:{number}'
        source = partial(_replaced, module, old, new)
        if before != after:
            made.append(Fault(path, line, before, after, key, source))
    return sorted(made, key=lambda fault: fault.line)


def _replaced(module: cst.Module, old: cst.CSTNode, new: cst.CSTNode) -> str:
    return module.deep_replace(old, new).code


def _one_line(code: str) -> str:
    """The code without comments above it; of an ``if`` its first line."""
    lines = [line.strip() for line in code.splitlines()]
    lines = [line for line in lines if line and not line.startswith('#')]
    return lines[0] if lines[:1] and lines[0].startswith(('if ', 'elif ')) else ' '.join(lines)
