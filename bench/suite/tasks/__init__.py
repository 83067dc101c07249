"""The tasks, one subject a file, and all of them by name."""

from __future__ import annotations

from collections.abc import Mapping

from suite.problem import Task
from suite.tasks.cartpole import CARTPOLE
from suite.tasks.digits import DIGITS, DIGITS_16
from suite.tasks.encoder import ENCODER, LORA
from suite.tasks.language import GPT_4, GPT_32, GPT_128, GPT_LONG
from suite.tasks.llama import LLAMA
from suite.tasks.recommender import RECOMMENDER
from suite.tasks.tabular import TABULAR, TABULAR_64

__all__ = ["SUITE", "TASKS"]

_SUITE = (
    *(GPT_4, GPT_128, DIGITS, TABULAR, LORA, ENCODER),
    *(GPT_32, GPT_LONG, LLAMA, RECOMMENDER, CARTPOLE),
)
#: The tasks of the suite; beside them there are some with a smaller batch, for other programs.
SUITE = tuple(task.name for task in _SUITE)
TASKS: Mapping[str, Task] = {task.name: task for task in (*_SUITE, DIGITS_16, TABULAR_64)}
