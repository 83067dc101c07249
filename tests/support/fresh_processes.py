"""Programs in processes of their own, where torch is there already and COSMIC is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Program", "outputs_of"]

#: Imports torch, which takes a second, and forks for each program.
_PARENT = """
import json, os, sys, tempfile, traceback
import torch

def run(source, environment):
    os.environ.pop("COSMIC_ISA", None)
    os.environ.update(environment)
    exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})

found = []
for source, environment in json.load(sys.stdin):
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            status = 1
            try:
                os.dup2(output.fileno(), 1)
                run(source, environment)
                sys.stdout.flush()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"this program failed: {source}")
        output.seek(0)
        found.append(output.read().decode())
print(json.dumps(found))
"""


class Program(NamedTuple):
    """Source text, and what is set of its environment; COSMIC_ISA is not set otherwise."""

    source: str
    environment: Mapping[str, str] = {}


def outputs_of(programs: Sequence[Program]) -> list[str]:
    """What each program prints. One that fails is an error, which says what it printed there."""
    done = subprocess.run(
        [sys.executable, "-c", _PARENT], input=json.dumps(programs),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found
