"""The leak watcher: its readings are real and its verdict can be bad."""

import subprocess
import sys

import pytest

from tools.dev.soak_readings import Reading, finished_iterations, judge, read_process


def readings(**growth):
    """100 readings of a flat run, in which some fields grow from start to end by so much."""
    flat = dict(main_mib=1000.0, workers_mib=100.0, handles=50.0, shared_mib=10.0)
    return [
        Reading(
            iteration=10 * i,
            children=(1, 2),
            **{name: value + growth.get(name, 0) * i / 100 for name, value in flat.items()},
        )
        for i in range(100)
    ]


def test_flat_is_flat():
    assert judge(readings(), warm_up=200) == []
    assert judge(readings(main_mib=10, handles=1), warm_up=200) == []


@pytest.mark.parametrize(
    ('leak', 'words'),
    [
        (dict(main_mib=50), 'main_mib grew from'),
        (dict(workers_mib=60), 'workers_mib grew'),
        (dict(shared_mib=60), 'shared_mib grew'),
        (dict(handles=10), 'file handles grew'),
    ],
)
def test_leaks_are_found(leak, words):
    findings = judge(readings(**leak), warm_up=200)
    assert len(findings) == 1 and words in findings[0]


def test_a_worker_that_is_not_replaced_is_found():
    late = [
        Reading(r.iteration, r.main_mib, r.workers_mib, r.handles, r.shared_mib, (1,))
        for r in readings()[50:]
    ]
    assert judge(readings()[:50] + late, warm_up=200) == ['number of children changed from 2 to 1']


@pytest.mark.parametrize(('leak', 'found'), [(0.0, []), (1.5, ['workers_mib grew'])])
def test_a_replaced_worker_begins_higher_and_is_compared_with_itself(leak, found):
    """Forked from a grown process: 60 MiB more at once, 15 more while it warms up; no leak."""
    life = [
        Reading(
            r.iteration, r.main_mib, 160.0 + min(i, 15) + leak * i, r.handles, r.shared_mib, (1, 3)
        )
        for i, r in enumerate(readings()[40:])
    ]
    findings = judge(readings()[:40] + life, warm_up=200)
    assert len(findings) == len(found) and all(map(str.startswith, findings, found))


def test_growth_during_warm_up_does_not_count_and_too_few_readings_are_refused():
    young = [Reading(i, 10.0 * i, 0, 0, 0, ()) for i in range(20)]
    assert judge(young + [Reading(20 + i, 200.0, 0, 0, 0, ()) for i in range(20)], warm_up=19) == []
    with pytest.raises(ValueError, match='0 readings after iteration 500'):
        judge(young, warm_up=500)


GROWS = """
import os, sys, time
print('small', flush=True)
sys.stdin.readline()
block = bytearray(64 << 20)
block[::4096] = b'x' * len(block[::4096])
handles = [open(os.path.join(sys.argv[1], str(i)), 'w') for i in range(5)]
child = os.fork()
if child == 0:
    time.sleep(30)
    os._exit(0)
print(child, flush=True)
sys.stdin.readline()
os.kill(child, 9)
os.waitpid(child, 0)
"""


def test_readings_of_a_real_process(tmp_path):
    # Not this process: what earlier tests left behind may be freed between two readings.
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, '-c', GROWS, str(tmp_path)], **pipes) as process:
        assert process.stdout.readline() == 'small\n'
        before = read_process(process.pid, 3)
        print(file=process.stdin, flush=True)
        child = int(process.stdout.readline())
        after = read_process(process.pid, 4)
        process.communicate('\n', timeout=30)
    assert process.returncode == 0
    assert 60 < after.main_mib - before.main_mib < 80
    assert after.handles - before.handles == 5
    assert not before.children and set(after.children) == {child}
    # A forked child has its parent's block too, and shares it.
    assert after.workers_mib > 60
    assert after.private_mib - before.private_mib < 60
    assert read_process(child, 5) is None


def test_iterations_come_from_the_newest_log(tmp_path):
    assert finished_iterations(tmp_path) == 0
    for name, steps in (('20240101', [1, 2]), ('20240102', [3, 40])):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        text = ''.join(f'{{"loss": 1.0, "step": {step}}}\n' for step in steps)
        (folder / 'scalars.json').write_text(text)
    assert finished_iterations(tmp_path) == 40


def test_a_run_too_short_to_judge_is_refused(monkeypatch, capsys):
    from tools.dev import soak

    monkeypatch.setattr(sys, 'argv', ['soak.py', 'x.py', '--iterations', '1100'])
    with pytest.raises(SystemExit):
        soak.parse_args()
    assert '--iterations 1100 with --warm-up 600' in capsys.readouterr().err
    monkeypatch.setattr(sys, 'argv', ['soak.py', 'x.py'])
    assert soak.parse_args().iterations == 1400
