"""``param_groups`` as users may have changed them by hand: every error names the place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

__all__ = ["Group", "check_all_placed", "check_dicts", "name_of", "placed_params"]

#: A parameter group: its parameters and its options.
Group = dict[str, Any]


def check_dicts(groups: object) -> None:
    """Raise TypeError unless ``param_groups`` is a list of dicts. Cheap: every step asks."""
    if not isinstance(groups, list):
        raise TypeError(f"param_groups is {_described(groups)}; expected a list of dicts")
    for g, group in enumerate(groups):
        if not isinstance(group, dict):
            raise TypeError(
                f"param_groups[{g}] is {_described(group)}; expected a dict, as "
                "add_param_group({'params': [...]}) makes it"
            )


def placed_params(groups: Any) -> Iterator[tuple[int, int, Tensor]]:
    """Every parameter, after its group and its position there.

    Raises:
        ValueError: for a group without ``'params'``.
        TypeError: for what is no list of tensors, naming the place and what was found.
    """
    check_dicts(groups)
    for g, group in enumerate(groups):
        if "params" not in group:
            raise ValueError(f"param_groups[{g}] has no 'params'; was it removed?")
        params = group["params"]
        if not isinstance(params, list | tuple):  # what can be read once has been after a step
            raise TypeError(
                f"param_groups[{g}]['params'] is {_described(params)}; expected a list of tensors, "
                "such as list(model.parameters())"
            )
        for k, param in enumerate(params):
            if not isinstance(param, Tensor):
                raise TypeError(
                    f"param_groups[{g}]['params'][{k}] is {_described(param)}; expected "
                    + _expected(param)
                )
            yield g, k, param


def check_all_placed(state: Iterable[Any], groups: Any) -> None:
    """Raise ValueError if there is state of a parameter that was taken out of the groups."""
    placed = {id(param) for _, _, param in placed_params(groups)}
    gone = [key for key in state if isinstance(key, Tensor) and id(key) not in placed]
    if gone:
        raise ValueError(
            f"optimizer.state holds parameters that are in no group any more, {len(gone)} in all, "
            f"one of shape {tuple(gone[0].shape)}; delete optimizer.state[param] of each"
        )


def name_of(group: dict[str, Any], position: int) -> str | None:
    """The user's name of a group's parameter; None where there is none, as where it was appended
    to ``'params'`` alone."""
    names = group.get("param_names")
    if not isinstance(names, list | tuple) or position >= len(names) or names[position] is None:
        return None
    return str(names[position])


def _described(value: object) -> str:
    """What it is, in few words, whatever its size."""
    if value is None:
        return "None"
    kind = type(value).__name__
    article = "an" if kind[0].lower() in "aeio" else "a"
    if isinstance(value, list | tuple) and 0 < len(value) <= 3:
        kind += f" of {', '.join(type(item).__name__ for item in value)}"
    return f"{article} {kind}"


def _expected(param: object) -> str:
    if isinstance(param, tuple) and len(param) == 2 and isinstance(param[1], Tensor):
        return "the tensor alone; its name goes into the group's 'param_names'"
    if isinstance(param, nn.Module):
        return "a tensor: extend the list by the module's parameters()"
    if isinstance(param, list | tuple):
        return "a tensor: extend the list by these"
    return "a tensor"
