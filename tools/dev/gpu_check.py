"""One look at a GPU in a few minutes: what is wrong first, then where the time goes.

    python tools/dev/gpu_check.py --out gpu_check.jsonl           # on the GPU
    python tools/dev/gpu_check.py --device cpu --tiny             # tries the script itself

Sections run in order of value. Each writes one JSON line as soon as it knows something, and one
that fails or runs out of time never stops the next.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from s3pt_mm.hosts import compat  # noqa: E402

compat.apply()

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from torch import Tensor  # noqa: E402

from tools.dev.benchmark_pretrain import matrix_speed  # noqa: E402
from tools.dev.stopwatch import device_work, interleaved  # noqa: E402
from tools.dev.training_step import TrainingStep, fill_queue  # noqa: E402

RECIPE = ROOT / 'configs' / 's3pt' / 'vits16_nuscenes.py'
HALVES = {'cuda': (torch.float16, torch.bfloat16), 'cpu': (torch.bfloat16,)}


class Check:
    """The sections, and what they share.

    Args:
        device: Where everything runs.
        tiny: Small networks and few repetitions.
        out: File of JSON lines; None: standard output only.
    """

    def __init__(self, device: torch.device, tiny: bool, out: Path | None) -> None:
        self.device, self.tiny, self.out = device, tiny, out
        self.start = time.monotonic()

    def say(self, section: str, **figures: Any) -> None:
        """Write one line."""
        line = dict(section=section, at=round(time.monotonic() - self.start, 1), **figures)
        print(json.dumps(line), flush=True)
        if self.out is not None:
            with open(self.out, 'a') as file:
                file.write(json.dumps(line) + '\n')

    def _beside(self, name: str) -> Path | None:
        return None if self.out is None else self.out.with_name(name)

    def config(self, *, small: bool = False, recipe: Path = RECIPE, **options: Any) -> Config:
        """The recipe's config; ``small`` or a tiny check shrinks the networks."""
        from mmengine.registry import init_default_scope

        cfg = Config.fromfile(recipe)
        init_default_scope('mmpretrain')
        if small or self.tiny:
            arch = dict(embed_dims=96, num_layers=2, num_heads=3, feedforward_channels=192)
            cfg.model.backbone.arch = arch
            sizes = dict(num_prototypes=1024, hidden_channels=128, bottleneck_channels=64)
            cfg.model.head.update(sizes)
            if 'queue_images' in cfg.model:
                cfg.model.queue_images = 64
        cfg.merge_from_dict({f'model.{key}': value for key, value in options.items()})
        return cfg

    def step(
        self, images: int, *, small: bool = False, recipe: Path = RECIPE, **options: Any
    ) -> TrainingStep:
        """A training step with a full memory and the cross-image term, from one seed."""
        torch.manual_seed(0)
        cfg = self.config(small=small, recipe=recipe, **options)
        step = TrainingStep(cfg, images, self.device)
        if hasattr(step.model, 'queue'):
            fill_queue(step.model, 60)
        return step

    def machine(self) -> None:
        """Card, versions and what its matrix units reach."""
        size = 256 if self.tiny else 8192
        speeds = {
            str(dtype): round(matrix_speed(self.device, dtype, size) / 1e12, 3)
            for dtype in (torch.float32, *HALVES[self.device.type])
        }
        cuda = self.device.type == 'cuda'
        name = torch.cuda.get_device_name(self.device) if cuda else 'CPU'
        self.say('machine', card=name, torch=torch.__version__, tflops=speeds)

    def parity(self) -> None:
        """Losses and gradients here against the CPU in float32, from the same weights and views."""
        truth = self._gradients(torch.device('cpu'), None)
        cases = [(dtype, 'plain') for dtype in (None, *HALVES[self.device.type])]
        if self.device.type == 'cuda':
            cases += [(dtype, 'kernel') for dtype in HALVES['cuda']]
        for dtype, cross_entropy in cases:
            found = self._gradients(self.device, dtype, cross_entropy)
            errors = sorted(
                (float((found[name] - grad).norm() / grad.norm().clamp_min(1e-30)), name)
                for name, grad in truth.items()
            )
            middle = errors[len(errors) // 2][0]
            self.say('parity', dtype=str(dtype), cross_entropy=cross_entropy, median_error=middle,
                     worst=errors[-1])  # fmt: skip

    def _gradients(
        self, device: torch.device, dtype: torch.dtype | None, cross_entropy: str = 'plain'
    ) -> dict[str, Tensor]:
        torch.manual_seed(0)
        cfg = self.config(small=True, cross_entropy=cross_entropy)
        cfg.model.backbone.drop_path_rate = 0.0
        step = TrainingStep(cfg, 4, torch.device('cpu'))
        step.model.init_weights()
        step.model.to(device)
        inputs = [view.to(device) for view in step.inputs]
        enabled = dtype is not None
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=enabled):
            losses = step.model.loss(inputs, step.samples)
        total = sum(value for name, value in losses.items() if 'loss' in name)
        scale = 1024.0 if dtype == torch.float16 else 1.0  # as low as a GradScaler goes, here
        (total * scale).backward()
        named = step.model.student.named_parameters()
        return {n: p.grad.double().cpu() / scale for n, p in named if p.grad is not None}

    def recipe(self) -> None:
        """The recipe's step: wall time, time until the host is free, memory, and by setting."""
        images = 2 if self.tiny else 32
        half = HALVES[self.device.type][0]
        settings = dict(
            as_shipped={},
            cross_entropy_kernel=dict(cross_entropy='kernel'),
            compiled=dict(cross_entropy='kernel', compile='default'),
            cuda_graphs=dict(cross_entropy='kernel', compile='reduce-overhead'),
        )
        if self.device.type == 'cpu':
            del settings['compiled'], settings['cuda_graphs']  # a minute of g++ each
        for label, options in settings.items():
            if self.device.type == 'cuda':
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            step = self.step(images, **options)
            step.watch.waits = False
            begin = time.monotonic()
            step(half)  # compiles
            first = round(time.monotonic() - begin, 1)
            figures = self._timed(lambda step=step: step(half))
            figures['images_per_second'] = round(images / figures['seconds'], 1)
            if self.device.type == 'cuda':
                figures['peak_gb'] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
                figures.update(
                    device_work(lambda step=step: step(half), self._beside(f'{label}.txt'))
                )
            step.watch.waits = True
            step.watch.take()
            step(half)
            figures['parts_ms'] = {k: round(v * 1e3, 2) for k, v in step.watch.take().items()}
            self.say('recipe', setting=label, images=images, dtype=str(half), first_step=first,
                     **figures)  # fmt: skip

    def repeatable(self) -> None:
        """Two equal runs of three steps: the same bits? Under deterministic algorithms too?"""
        for recipe in (RECIPE, RECIPE.parents[1] / 'dino' / RECIPE.name):
            for strict in (False, True):
                torch.use_deterministic_algorithms(strict)
                try:
                    first, second = self._three_steps(recipe), self._three_steps(recipe)
                    found = dict(largest_difference=float((first - second).abs().max()))
                except RuntimeError as error:
                    found = dict(error=str(error)[:300])
                finally:
                    torch.use_deterministic_algorithms(False)
                self.say('repeatable', recipe=recipe.parent.name, deterministic=strict, **found)

    def _three_steps(self, recipe: Path) -> Tensor:
        step = self.step(4, small=True, recipe=recipe)
        for _ in range(3):
            step(HALVES[self.device.type][0])
        return torch.cat([p.detach().flatten() for p in step.model.student.parameters()]).cpu()

    def training(self) -> None:
        """tools/train.py as users call it: an epoch on JPEGs, a resumed one, one of torchrun."""
        from PIL import Image

        count = 16 if self.tiny else 352
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            photos = Path(folder) / 'photos'
            photos.mkdir()
            for number in range(count):
                Image.effect_noise((800, 450), 64).save(photos / f'{number}.jpg')
            words = [
                str(RECIPE.with_name('vits16_image_folder.py')),
                *('--work-dir', str(Path(folder) / 'run')),
            ]
            options = [f'train_dataloader.dataset.data_root={photos}']
            options += ['default_hooks.logger.interval=1', 'train_cfg.max_epochs=']
            if self.tiny:
                options[:0] = ['train_dataloader.batch_size=8', 'train_dataloader.num_workers=1']
                options[:0] = ['model.head.num_prototypes=512', 'model.queue_images=16']
            torchrun = ['-m', 'torch.distributed.run', '--nproc_per_node=1']
            for epoch, (launcher, more) in enumerate(
                (([], []), ([], ['--resume']), (torchrun, ['--resume', '--launcher', 'pytorch']))
            ):
                if epoch == 1 and self.tiny:
                    continue
                options[-1] = f'train_cfg.max_epochs={epoch + 1}'
                command = [sys.executable, *launcher, str(ROOT / 'tools' / 'train.py'), *words]
                begin = time.monotonic()
                done = subprocess.run(
                    [*command, *more, '--cfg-options', *options], capture_output=True, text=True
                )
                text = (done.stdout + done.stderr).splitlines()
                lines = [line[-300:] for line in text if 'Epoch(train)' in line]
                if done.returncode:
                    lines = [line[-300:] for line in text]
                seconds = round(time.monotonic() - begin, 1)
                self.say('training', epoch=epoch + 1, rc=done.returncode, seconds=seconds,
                         last=lines[-6 if done.returncode else -2:])  # fmt: skip

    def probes(self) -> None:
        """A step of both Segmenter heads and of PETR, in float32, TF32 and bf16."""
        from tools.dev import benchmark_detection, benchmark_segmentation

        crop = 64 if self.tiny else 512
        tasks = benchmark_segmentation.build_tasks(2, crop, None, False, str(self.device))
        tasks['PETR step'] = benchmark_detection.build_step(self.device, tiny=self.tiny)
        for name, tf32, half in (
            ('float32', False, False),
            ('TF32', True, False),
            ('bfloat16', False, True),
        ):
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                seconds = {key: self._timed(task)['seconds'] for key, task in tasks.items()}
            self.say('probes', precision=name, seconds=seconds)

    def _timed(self, task: Callable[[], Any]) -> dict[str, float]:
        rounds = interleaved({'task': task}, 1 if self.tiny else 8, self.device)['task']
        return dict(seconds=rounds.wall, host_seconds=rounds.host)


SECTIONS = ('machine', 'parity', 'recipe', 'training', 'repeatable', 'probes')


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in the block once ``seconds`` are over."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f'over {seconds:.0f} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(argv: list[str] | None = None) -> int:
    """Run the sections; 0 if all of them ended well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda', help='default: cuda')
    parser.add_argument('--tiny', action='store_true', help='small networks, few repetitions')
    parser.add_argument('--out', type=Path, help='JSON lines, appended')
    parser.add_argument('--only', nargs='+', choices=SECTIONS, default=SECTIONS)
    parser.add_argument('--budget', type=float, default=400.0, help='seconds for all sections')
    args = parser.parse_args(argv)
    MMLogger.get_instance('gpu_check', log_level='WARNING')  # not a line a parameter
    check, failed = Check(torch.device(args.device), args.tiny, args.out), 0
    for section in args.only:
        left = args.budget - (time.monotonic() - check.start)
        try:
            with time_limit(left):
                getattr(check, section)()
        except Exception as error:
            failed += 1
            place = traceback.format_exc().splitlines()[-3:]
            check.say(section, error=f'{type(error).__name__}: {error}', place=place)
    return min(failed, 1)


if __name__ == '__main__':
    sys.exit(main())
