"""The Triton kernels: under the interpreter, compiled without a GPU, and on one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from model.ops import sampling, sampling_native
from tests.sampling_cases import (
    CASES,
    LONG_ROW,
    Case,
    check_by_pytorchs_sampler,
    operands_of_long_row,
)

triton = pytest.importorskip("triton", reason="this build of PyTorch brings no Triton")
ROOT = Path(__file__).resolve().parents[1]


def needs_gpu(test):
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    return pytest.mark.gpu(skip(test))


def test_kernels_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "tests/triton_interpreter.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def kernels(monkeypatch) -> Iterator[Callable[[], ModuleType]]:
    """Who samples on an A100, where a C compiler and Python.h are; asked anew by every test."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(Path, "exists", lambda path: True)
    sampling._kernels.cache_clear()
    yield lambda: sampling._kernels("cuda")
    sampling._kernels.cache_clear()


def test_triton_runs_where_it_finds_what_it_needs(kernels, caplog):
    assert kernels().__name__ == "model.ops.sampling_triton"
    assert not caplog.messages


@pytest.mark.parametrize("lacking", ["gcc or clang", "no-such-cc", "Python.h", "no such GPU"])
def test_where_triton_cannot_run_pytorchs_sampler_does(kernels, monkeypatch, caplog, lacking):
    if lacking == "Python.h":
        monkeypatch.setattr(Path, "exists", lambda path: path.name != "Python.h")
    elif lacking == "no such GPU":
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    else:
        monkeypatch.setattr(shutil, "which", lambda name: None)
    if lacking == "no-such-cc":
        monkeypatch.setenv("CC", lacking)
    assert kernels() is kernels() is sampling_native
    (line,) = caplog.messages
    assert lacking in line


@pytest.mark.parametrize(
    ("case", "dtype", "capability"),
    [
        (CASES[0], torch.bfloat16, 80),
        (CASES[1], torch.bfloat16, 90),
        (CASES[2], torch.bfloat16, 80),
        (CASES[2], torch.float32, 90),
        (CASES[4], torch.bfloat16, 90),
        (CASES[4], torch.float32, 80),
    ],
    ids=str,
)
def test_kernels_compile_for_a_gpu_that_is_not_here(
    case: Case, dtype: torch.dtype, capability: int, tmp_path, monkeypatch
):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from model.ops import sampling_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    operands = [t if t is None else t.to(dtype) for t in case.operands(16)]
    _, settings = sampling_triton._launch(*operands, case.form, case.step)
    pointer = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype]
    for kernel in (sampling_triton._forward, sampling_triton._backward):
        names = kernel.arg_names
        types = dict.fromkeys(names, pointer) | dict.fromkeys(("pixels", "H", "W"), "i32")
        types["of_value"] = "*fp32"
        constants = {n: v for n, v in settings.items() if n not in ("pixels", "H", "W")}
        signature = {n: "constexpr" if n in constants else types[n] for n in names}
        source = ASTSource(
            kernel, signature, {(names.index(n),): value for n, value in constants.items()}
        )
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert len(compiled.asm["cubin"]) > 1000


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("width", [1, 3, 16, 70])
def test_kernels_on_a_gpu_agree_with_pytorchs_sampler(case: Case, dtype: torch.dtype, width: int):
    from model.ops import sampling_triton

    operands = [None if t is None else t.to(dtype).cuda() for t in case.operands(width)]
    bound = {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, torch.finfo(dtype).eps)
    # Slopes jump at whole pixels, where rounded offsets may lie: no gradient of these.
    precise = dtype in (torch.float64, torch.float32)
    check_by_pytorchs_sampler(
        sampling_triton, case, operands, rtol=bound, atol=bound, of_offset=precise
    )


@needs_gpu
def test_fractions_on_a_gpu_keep_their_bits_far_along_the_map():
    from model.ops import sampling_triton

    operands = [None if t is None else t.cuda() for t in operands_of_long_row()]
    check_by_pytorchs_sampler(sampling_triton, LONG_ROW, operands, rtol=1e-6, atol=1e-6)
