"""The GPU's cross-entropy without a GPU: what it computes, and that it compiles for one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s3pt_mm.kernels import kernel_for

HERE = Path(__file__).parent
COMPILE = """
import json, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from s3pt_mm.kernels import cross_entropy as kernels
arch, width = {arch}, 256
blocks = kernels.block_sizes(torch.bfloat16, width)
options = dict(num_warps=blocks.pop('num_warps'), num_stages=blocks.pop('num_stages'))
found = {{}}
for name in {names}:
    function = getattr(kernels, name)
    types = {{
        argument: '*bf16' if argument in 'yvzu' else 'constexpr' if argument in blocks
        else 'i32' if argument in ('pairs', 'count', 'width', 'tiles') else '*fp32'
        for argument in function.arg_names
    }}
    aligned = {{(i,): [['tt.divisibility', 16]] for i, (argument, kind) in enumerate(types.items())
               if kind != 'constexpr' and argument not in ('pairs', 'tiles')}}
    source = ASTSource(function, types, blocks, aligned)
    compiled = triton.compile(source, target=GPUTarget('cuda', arch, 32), options=options)
    found[name] = compiled.metadata.shared, 'wgmma' in compiled.asm['ptx']
print(json.dumps(found))
"""
KERNELS = [
    'forward_kernel',
    'backward_rows_kernel',
    'backward_columns_kernel',
    'column_sum_kernel',
]


def run(*command: str, **environment: str) -> str:
    """Output of a fresh process: Triton decides at import whether it interprets."""
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_equals_the_plain_form_on_tritons_interpreter() -> None:
    pytest.importorskip('triton')
    tests = str(HERE / 'interpreted_cross_entropy.py')
    out = run('-m', 'pytest', '-q', '--noconftest', tests, TRITON_INTERPRET='1')
    assert '6 passed' in out


@pytest.mark.slow
@pytest.mark.parametrize(('arch', 'memory'), [(80, 163), (90, 227)])  # A100 and H100, KB of an SM
def test_compiles_for_the_gpu_within_its_shared_memory(arch: int, memory: int, tmp_path) -> None:
    pytest.importorskip('triton')
    code = COMPILE.format(arch=arch, names=KERNELS)
    found = json.loads(run('-c', code, TRITON_INTERPRET='0', TRITON_CACHE_DIR=str(tmp_path)))
    assert list(found) == KERNELS
    for shared, hopper in found.values():
        assert shared <= 1024 * memory
        assert hopper == (arch == 90)  # the tensor cores' own instructions


def test_one_dispatch_by_option_and_device() -> None:
    cpu, cuda = torch.device('cpu'), torch.device('cuda')
    assert kernel_for('cross_entropy', cuda, 'plain') is None
    assert kernel_for('cross_entropy', cpu, 'kernel') is None
    assert kernel_for('dropout_attention', cuda, 'kernel') is None
    found = kernel_for('dropout_attention', cpu, 'kernel')
    assert found.__name__ == 's3pt_mm.kernels.dropout_attention'
    with pytest.raises(ValueError, match="implementation must be one of .* got 'fast'"):
        kernel_for('cross_entropy', cpu, 'fast')
