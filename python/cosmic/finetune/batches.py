"""Which blocks make which batch: a function of the seed alone, the same for every optimizer."""

import numpy as np
from numpy.typing import NDArray


def training_batches(blocks: int, batch_size: int, steps: int, seed: int) -> NDArray[np.int64]:
    """Block numbers, shape (steps, batch_size): shuffled epochs, one after the other."""
    random = np.random.default_rng(seed)
    wanted = steps * batch_size
    epochs = [random.permutation(blocks) for _ in range(-(-wanted // blocks))]
    return np.concatenate(epochs)[:wanted].reshape(steps, batch_size)


def validation_batches(blocks: int, batch_size: int, count: int) -> list[NDArray[np.int64]]:
    """At most `count` batches of different blocks, spread evenly over all of them."""
    wanted = min(blocks, count * batch_size)
    chosen = np.arange(wanted, dtype=np.int64) * blocks // wanted
    return [chosen[start : start + batch_size] for start in range(0, wanted, batch_size)]
