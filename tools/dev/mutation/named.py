"""Faults that once survived the suite, with the test that must see each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.dev.mutation.faults import Fault


@dataclass(frozen=True)
class Named:
    """A fault by hand.

    Attributes:
        name: What is wrong.
        path: The file.
        before: Text that stands in it once.
        after: What takes its place.
        tests: pytest's arguments; at least one of these tests must fail.
    """

    name: str
    path: str
    before: str
    after: str
    tests: tuple[str, ...]

    def fault(self, root: Path) -> Fault:
        """The file with the fault.

        Raises:
            ValueError: The text does not stand in the file exactly once.
        """
        source = (root / self.path).read_text(encoding='utf-8')
        if source.count(self.before) != 1:
            raise ValueError(f'{self.path}: {self.before!r} is there {source.count(self.before)} x')
        line = source[: source.index(self.before)].count('\n') + 1
        after = source.replace(self.before, self.after)
        return Fault(self.path, line, self.before, self.after, self.name, lambda: after)


_CLUSTERING = 's3pt_mm/method/clustering'
_RESUME = 's3pt_mm/resume'
_DEPTH_TESTS = ('tests/test_method/test_clustering',)
_SKIPS = ('tests/test_resume/test_divergence.py', '-k', 'skip or counters')
_LOSS_TESTS = ('tests/test_detection/test_petr_head.py', '-k', 'velocity or objects_of_all')

NAMED = (
    Named(
        'a depth on either side is enough',
        f'{_CLUSTERING}/costs.py',
        'has_depth[:, :, None] & has_depth[:, None, :]',
        'has_depth[:, :, None] | has_depth[:, None, :]',
        _DEPTH_TESTS,
    ),
    Named(
        'a centroid without depth counts',
        f'{_CLUSTERING}/costs.py',
        'nan_to_num_(nan=-torch.inf)',
        'nan_to_num_(nan=0.0)',
        _DEPTH_TESTS,
    ),
    Named(
        'the depth term has no weight',
        f'{_CLUSTERING}/joint_view.py',
        'cost.add_(term, alpha=weight)',
        'cost.add_(term)',
        _DEPTH_TESTS,
    ),
    Named(
        'ranks judge a step alone',
        f'{_RESUME}/divergence.py',
        "        dist.all_reduce(verdict, op='max')\n",
        '',
        ('tests/test_resume/test_divergence.py', '-k', 'other_rank'),
    ),
    Named(
        'good steps do not end a row of skips',
        f'{_RESUME}/divergence.py',
        '                self._skips = 0\n                step(**kwargs)',
        '                step(**kwargs)',
        _SKIPS,
    ),
    Named(
        'a resumed run forgets its skips',
        f'{_RESUME}/divergence.py',
        'if self._restored is not None:',
        'if False:',
        _SKIPS,
    ),
    Named(
        'a checkpoint holds no counters',
        f'{_RESUME}/divergence.py',
        "{'skips': self._skips, 'collapsed_for': self._collapsed_for}",
        "{'skips': 0, 'collapsed_for': 0}",
        _SKIPS,
    ),
    Named(
        'the position says nothing of the ranks',
        f'{_RESUME}/exact_resume.py',
        "('dataset_size', 'batch_size', 'world_size', 'data')",
        "('dataset_size', 'batch_size', 'data')",
        ('tests/test_resume/test_other_settings.py', '-k', 'ranks'),
    ),
    Named(
        'a share of an epoch ignores how many ranks there were',
        f'{_RESUME}/exact_resume.py',
        "done = then['batch'] * then['batch_size'] * then['world_size']",
        "done = then['batch'] * then['batch_size']",
        ('tests/test_resume/test_other_settings.py', '-k', 'ranks'),
    ),
    Named(
        'an unknown velocity pulls to zero',
        's3pt_mm/detection/petr/petr_loss.py',
        '(torch.isfinite(wanted) * code_weights)',
        'code_weights',
        _LOSS_TESTS,
    ),
    Named(
        'losses are divided by the objects of the last sample',
        's3pt_mm/detection/petr/petr_loss.py',
        'num_objects = max(query.shape[1], 1)',
        'num_objects = max(len(truth[-1].labels), 1)',
        _LOSS_TESTS,
    ),
    Named(
        'KL to uniform in another base',
        's3pt_mm/method/algorithms/image_level.py',
        'teacher_kl_uniform=math.log(p.shape[1])',
        'teacher_kl_uniform=math.log2(p.shape[1])',
        ('tests/test_method/test_algorithms/test_teacher_health.py',),
    ),
    Named(
        'JSON is written in place',
        's3pt_mm/common/files.py',
        "    write_text(path, json.dumps(_plain(content), indent=indent) + '\\n')",
        '    Path(path).parent.mkdir(parents=True, exist_ok=True)\n'
        "    Path(path).write_text(json.dumps(_plain(content), indent=indent) + '\\n')",
        ('tests/test_common/test_files.py', '-k', 'json or readers'),
    ),
)
