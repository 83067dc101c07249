"""Which kernels run: the instruction sets of this machine, and which of them is in use.

The choice is never made by timing: the best set that the processor has, or the one that is asked
for by name. Bits of parameters and state are the same on all of them, so that a choice is about
time alone (``docs/reproducibility.md``).
"""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from . import _core
from .threads import forked, thread_count

__all__ = ["available", "configure", "diagnostics", "selected"]

_VARIABLE = "COSMIC_ISA"
#: What decides how a process computes, and is worth knowing of one that is slow.
_ENVIRONMENT = (_VARIABLE, "OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")


def available() -> list[str]:
    """Instruction sets that this build has and this processor runs, best first: of ``"avx512"``,
    ``"avx2"``, ``"neon"`` and ``"scalar"``, which is always there. Chooses nothing."""
    return list(_core.available_isas())


def selected() -> str:
    """The instruction set in use. Asking is a first use, which settles it for the process.

    Raises:
        RuntimeError: if ``COSMIC_ISA`` names what this machine does not have.
    """
    return str(_core.build_info()["isa"])


def configure(isa: str) -> None:
    """Use an instruction set in this process, as environment variable ``COSMIC_ISA`` does.

    It is settled once, when COSMIC is first used: by ``selected()`` or ``diagnostics()``, by an
    operator, or by a step. So call this right after the import. The variable is set, so that
    processes that are started from here on follow.

    Args:
        isa: one of ``available()``.

    Raises:
        ValueError: for a name that is not available here.
        RuntimeError: if another one is in use already. Nothing has changed then.
    """
    if not isinstance(isa, str) or isa not in available():
        raise ValueError(f"isa is {isa!r}; expected one of {', '.join(map(repr, available()))}")
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = isa
    try:
        in_use = selected()
    except RuntimeError:  # an earlier use has found the variable naming what there is not
        _restore(before)
        raise
    if in_use != isa:
        _restore(before)
        raise RuntimeError(
            f"isa is {isa!r}, but this process uses {in_use!r} already; call "
            f"cosmic.backends.configure({isa!r}) before anything else of cosmic is used, or start "
            f"the process with {_VARIABLE}={isa}"
        )


def _restore(before: str | None) -> None:
    if before is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = before


def diagnostics(*, self_test: bool = False) -> dict[str, Any]:
    """What is installed, what it found here and how it runs, ready for JSON.

    Args:
        self_test: also step every combination of rule and codecs on every instruction set, with one
            and with two threads, and compare the bits; takes seconds, on a busy machine a minute.

    Returns:
        Versions ``cosmic``, ``torch``, ``python`` and ``platform``; ``compiler``, ``flags`` and
        ``openmp`` of the build; ``isa`` and ``isa_available``; ``threads`` of a step and whether
        this is a ``forked`` child, which has one; ``environment``, the variables that bear on it
        and are set; and ``self_test``: None, or ``combinations``, ``isas`` and ``fingerprint``.

    Raises:
        RuntimeError: if ``COSMIC_ISA`` names what this machine does not have, or bits differ.
    """
    build = _core.build_info()
    return {
        "cosmic": build.pop("version"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **build,
        "threads": thread_count(),
        "forked": forked(),
        "environment": {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
        "self_test": _core.self_test() if self_test else None,
    }
