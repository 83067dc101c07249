"""Public names by the modules that users import them from, and that pickles of theirs name."""

from __future__ import annotations

import importlib
import pickle

import pytest
import torch

import cosmic
from cosmic import QuantizedTensor, RolePolicy

#: By what releases 0.1.0 and 0.2.0 called their modules.
SAVED = {
    "estimate": ("MemoryEstimate", "TensorEstimate"),
    "moments": ("Moments",),
    "optimizer": ("Cosmic", "NonfiniteGradientError"),
    "policies": ("Candidate", "RolePolicy", "SignalPolicy", "UniformPolicy"),
    "quantization": ("QuantizedTensor",),
    "reports": ("TierInfo",),
    "rungs": ("Rung",),
}
PATHS = [(module, name) for module, names in SAVED.items() for name in names]


@pytest.mark.parametrize(("module", "name"), PATHS)
def test_a_pickle_of_an_earlier_release_finds_its_classes(module: str, name: str) -> None:
    assert pickle.loads(f"ccosmic.{module}\n{name}\n.".encode()) is getattr(cosmic, name)


def test_an_optimizer_pickled_with_a_policy_finds_it() -> None:
    """As release 0.2.0 has named it."""
    optimizer = cosmic.Cosmic([torch.zeros(2)], budget="1KB", policy=RolePolicy())
    text = pickle.dumps(optimizer, protocol=0).decode("latin-1")
    home = RolePolicy.__module__
    assert home in text
    old = text.replace(f"c{home}\n", "ccosmic.policies\n").encode("latin-1")
    assert pickle.loads(old).policy == RolePolicy()


@pytest.mark.parametrize(
    ("module", "name"),
    [("backward", "StepInBackward"), ("with_moments", "WithMoments"), ("rungs", "combinations")],
)
def test_paths_that_the_documentation_names_can_be_imported(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(f"cosmic.{module}"), name)


def test_classes_that_hold_tensors_are_still_known_by_the_names_in_files() -> None:
    """torch.load(weights_only=True) compares the file's name of a class with its own."""
    assert QuantizedTensor.__module__ == "cosmic.quantization"
    assert cosmic.Moments.__module__ == "cosmic.moments"
