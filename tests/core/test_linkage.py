"""What the compiled libraries ask of PyTorch, and one OpenMP runtime in the process."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cosmic import _core
from fresh_processes import Program, outputs_of

CORE = Path(_core.__file__)
OPS = CORE.with_name("_ops.so")
KERNELS = CORE.with_name("libcosmic_kernels.so")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads ELF and /proc")

needs_binutils = pytest.mark.skipif(
    not (shutil.which("nm") and shutil.which("readelf")), reason="needs nm and readelf"
)

#: A mangled name with at::, c10:: or torch:: in it.
CXX_OF_TORCH = re.compile(r"^_Z.*N[KVRO]*(2at|3c10|5torch)\d")


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def undefined_symbols(library: Path) -> list[str]:
    lines = output_of("nm", "-D", "--undefined-only", library).splitlines()
    return [line.split()[-1].partition("@")[0] for line in lines]


def dynamic_section(library: Path) -> str:
    return output_of("readelf", "-d", library)


@needs_binutils
@pytest.mark.parametrize("library", [CORE, OPS], ids=["_core", "_ops"])
def test_no_cxx_symbol_of_torch(library: Path) -> None:
    symbols = undefined_symbols(library)
    assert symbols, "nm has found nothing: is this a shared library?"
    assert [name for name in symbols if CXX_OF_TORCH.search(name)] == []


def test_the_pattern_knows_torch_from_the_standard_library() -> None:
    torch_names = ["_ZN2at10TensorBase4gradEv", "_ZNK3c1010TensorImpl5sizesEv", "_ZTIN3c105ErrorE"]
    torch_names += ["_ZN5torch7LibraryC1Ev", "_ZSt4moveIRN2at6TensorEEvT_"]
    assert all(CXX_OF_TORCH.search(name) for name in torch_names)
    others = ["_ZNKSt6vectorIiSaIiEE2atEm", "_ZNSt13runtime_errorC1EPKc", "torch_list_size"]
    assert not any(CXX_OF_TORCH.search(name) for name in others)


@needs_binutils
def test_the_core_needs_nothing_of_torch() -> None:
    assert [s for s in undefined_symbols(CORE) if re.match(r"(aoti_)?torch_", s)] == []
    assert not re.search(r"NEEDED.*lib(torch|c10)", dynamic_section(CORE))


@needs_binutils
def test_the_operators_find_torch_in_the_process() -> None:
    assert [s for s in undefined_symbols(OPS) if s.startswith(("torch_", "aoti_torch_"))]
    section = dynamic_section(OPS)
    assert re.search(r"NEEDED.*libtorch_cpu\.so", section)


@needs_binutils
@pytest.mark.parametrize("library", [CORE, OPS], ids=["_core", "_ops"])
def test_both_doors_hold_the_kernels_once(library: Path) -> None:
    """In a library beside them, the only one that they look for at a place of their own."""
    section = dynamic_section(library)
    assert re.search(r"NEEDED.*libcosmic_kernels\.so", section)
    assert re.findall(r"(?:RPATH|RUNPATH)\).*\[(.*)\]", section) == ["$ORIGIN"]


@needs_binutils
def test_the_kernels_need_neither_torch_nor_openmp() -> None:
    assert not re.search(r"NEEDED.*lib(torch|c10|gomp|omp)", dynamic_section(KERNELS))
    assert not any(re.match(r"(aoti_)?torch_|GOMP", s) for s in undefined_symbols(KERNELS))


#: Steps in a process of its own with 1 and with 3 threads; prints the OpenMP runtimes and how many
#: threads each step has started.
PROBE = """
import json, os, re
import torch, cosmic, cosmic.ops

torch.set_num_threads(1)  # no thread of torch's own work is there to be used again
param = torch.nn.Parameter(torch.zeros(1_000_000))
param.grad = torch.ones_like(param)
optimizer = cosmic.Cosmic([param])

def step_by_class():
    optimizer.step()

@torch.no_grad()
def step_by_operator():
    torch.ops.cosmic.sign_step_([param], [param.grad], lr=0.1, beta1=0.9, weight_decay=0.0)

def started(threads):
    torch.set_num_threads(threads)
    before = len(os.listdir("/proc/self/task"))
    {step}()
    return len(os.listdir("/proc/self/task")) - before

counts = [started(1), started(3)]
with open("/proc/self/maps") as maps:
    found = {{m[0] for line in maps if (m := re.search(r"/.*/lib(gomp|iomp|omp)[^/\\s]*$", line))}}
print(json.dumps({{"counts": counts, "runtimes": sorted(found)}}))
"""


@pytest.fixture(scope="module")
def probed() -> list[Any]:
    programs = [Program(PROBE.format(step=step)) for step in ("step_by_class", "step_by_operator")]
    return [json.loads(output) for output in outputs_of(programs)]


def test_one_openmp_runtime(probed: list[Any]) -> None:
    assert [len(found["runtimes"]) for found in probed] == [1, 1], probed


def test_set_num_threads_is_obeyed(probed: list[Any]) -> None:
    assert [found["counts"] for found in probed] == [[0, 2], [0, 2]]  # besides the calling thread
