"""The core's test of itself, and what the package says where it cannot run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cosmic import _core

FINGERPRINT = Path(__file__).parents[1] / "wheels" / "fingerprint.txt"


def test_every_isa_steps_every_combination_with_the_same_bits() -> None:
    """With the fingerprint that wheels for other machines are compared with."""
    found = _core.self_test()
    assert found["isas"] == _core.build_info()["isa_available"]
    assert found["combinations"] == len(_core.combinations())
    assert found["fingerprint"] == FINGERPRINT.read_text().split()[-1]


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("import sys; sys.modules['torch'] = None", "there is none here: pip install torch"),
        (
            "import sys, types; sys.modules['torch'] = t = types.ModuleType('torch')\n"
            "t.__version__ = '2.9.1+cpu'",
            "this is 2.9.1+cpu: pip install --upgrade torch",
        ),
        (
            "import sys, types; sys.modules['torch'] = t = types.ModuleType('torch')\n"
            "t.__file__ = '/home/me/torch.py'",
            "this is another module: /home/me/torch.py",
        ),
    ],
    ids=["absent", "old", "another"],
)
def test_the_import_says_which_torch_it_needs(torch: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{torch}\nimport cosmic"], capture_output=True, text=True
    )
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: cosmic needs torch >= 2.10") and message.endswith(said)
