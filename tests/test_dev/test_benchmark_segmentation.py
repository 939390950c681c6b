"""The benchmark measures what it says: three tasks in turn, ratios to the backbone's forward."""

from mmengine.registry import DefaultScope, init_default_scope

from tools.dev import benchmark_segmentation as benchmark
from tools.dev.stopwatch import interleaved


def test_smoke():
    before = DefaultScope.get_current_instance()
    tasks = benchmark.build_tasks(1, 64, None, True, 'cpu')
    figures = interleaved(tasks, 1, 'cpu')
    if before is not None:
        init_default_scope(before.scope_name)
    assert list(figures)[0] == 'backbone forward' and {*benchmark.TARGETS} <= {*figures}
    assert figures['backbone forward'].ratio == 1.0
    assert all(row.wall > 0 and row.cpu_ratio > 0 for row in figures.values())
