"""A process that loads checkpoints and says what each took: `python loading_run.py FOLDER...`.

Prints one JSON object: for each folder bytes of weights, the peak of resident memory above the
process's before while the files are only checked, while loading, and while training a step that
writes every weight.
"""

import gc
import json
import sys
from typing import Any

import torch

from cosmic import Cosmic, load_model
from cosmic.models.building import build_model
from cosmic.models.weights import give_back_freed
from cosmic.train.memory import PeakRss, rss_bytes


def main(folders: list[str]) -> None:
    torch.set_num_threads(1)
    load_model("tiny-gpt2")  # what is imported first counts for nobody
    train(load_model(folders[0]))
    print(json.dumps({folder: measure(folder) for folder in folders}))


def measure(folder: str) -> dict[str, Any]:
    before_checking = fresh_rss_bytes()
    with PeakRss() as checking:
        build_model(folder, False, 0, "bf16", without_weights=True)
    before = fresh_rss_bytes()
    with PeakRss() as loading:
        model = load_model(folder)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    first = [p.detach().flatten()[:64].clone() for p in model.parameters()]
    with PeakRss() as training:
        train(model)
    pairs = zip(first, model.parameters(), strict=True)
    moved = [not torch.equal(a, p.flatten()[:64]) for a, p in pairs]
    return {
        "weight_bytes": weights,
        "checking_bytes": checking.bytes - before_checking,
        "loading_bytes": loading.bytes - before,
        "training_bytes": training.bytes - before,
        "dtypes": sorted({str(p.dtype) for p in model.parameters()}),
        "all_moved": all(moved),
    }


def fresh_rss_bytes() -> int:
    """Without what models before have left."""
    gc.collect()
    give_back_freed()
    return rss_bytes()


def train(model: Any) -> None:
    """A step of all parameters, each within backward, at a rate that moves weights of bf16."""
    optimizer = Cosmic(model.parameters(), lr=0.1, rung="tier1:factored", weight_decay=0.5)
    ids = torch.arange(4).view(1, 4)
    with optimizer.step_in_backward(model):
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main(sys.argv[1:])
