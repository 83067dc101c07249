"""The part of the tests that `make sanitize` runs on a build with sanitizers.

It reaches every kernel on every ISA of this machine, and what the doors to them must refuse. Output
is not captured by pytest: the first report of a sanitizer ends the process that it is about.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cosmic import _core

#: Cases of test_oracle.py by a part of their names: every rung, changes between rungs, numbers that
#: are not finite, and sizes that end within a block, so that what passes an end is seen.
CASES = "rung- or size-1- or size-129 or 7x33 or 5x16 or 3x11x20 or from- or special or agar-zero"

RUNS: list[list[str]] = [
    ["core/test_oracle.py", "-k", CASES],
    [
        "core/test_layouts.py",
        "optimizer/test_bad_input.py",
        "ops/test_bad_ops.py",
        "state/test_bad_packed_state.py",
    ],
    ["capital/test_bytes.py", "state/test_quantization.py", "state/test_moments.py"],
    ["distributed/test_wire.py"],
    ["core/test_places.py", "core/test_exchange.py", "-k", "not shards_of_rows_have"],
    ["step/test_copy_to.py", "step/test_master_bits.py", "shards/test_offloaded_shards.py"],
    ["conformance/test_exchanged_state.py", "conformance/test_state_shapes.py"],
    ["exact/test_exact_products.py", "exact/test_reference_training.py"],
    ["slices/test_part_options.py", "slices/test_part_steps.py", "-k", "layout or memory or plan"],
]


def sanitized() -> bool:
    """Whether this process has the runtime of AddressSanitizer and a build that calls it."""
    libraries = Path("/proc/self/maps").read_text()
    kernels = Path(_core.__file__).with_name("libcosmic_kernels.so").read_bytes()
    return "libasan" in libraries and b"__asan_report" in kernels and b"__ubsan_handle" in kernels


def main() -> int:
    if not sanitized():
        sys.exit(f"{_core.__file__} is not built with sanitizers: see `make sanitize`")
    print(_core.build_info(), _core.self_test(), sep="\n", flush=True)
    folder = Path(__file__).parent
    for names_and_options in RUNS:
        paths = [str(folder / a) if a.endswith(".py") else a for a in names_and_options]
        status = pytest.main([*paths, "-x", "-q", "--capture=sys", "-p", "no:cacheprovider"])
        if status:
            return int(status)
    return 0


if __name__ == "__main__":
    sys.exit(main())
