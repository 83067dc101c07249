"""The optimizers that can be compared, and the text that names one: `name:option=value:...`.

A peer is added by one line in `OPTIMIZERS`.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from cosmic.finetune.errors import UsageError

NamedParameters = Iterable[tuple[str, torch.nn.Parameter]]


def tensor_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state."""
    slots = (slot for state in optimizer.state.values() for slot in state.values())
    return sum(slot.nbytes for slot in slots if isinstance(slot, torch.Tensor))


def own_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of state, as the optimizer's own `state_bytes()` counts them."""
    return int(optimizer.state_bytes())  # type: ignore[attr-defined]


def byte_budget(text: str) -> int | str:
    """A number is bytes; "10%" and "64MB" are the optimizer's to read."""
    return int(text) if text.isdecimal() else text


Value = int | float | str
Converter = Callable[[str], Value]


@dataclass(frozen=True)
class OptimizerKind:
    """One line of the table: where the class lives, and what a spec may set on it."""

    target: str  # "module:Class", imported when first used
    options: Mapping[str, Converter]
    fixed: Mapping[str, object] = field(default_factory=dict)  # always passed, never an option
    state_bytes: Callable[[torch.optim.Optimizer], int] = tensor_state_bytes
    steps_in_backward: bool = False


COMMON: dict[str, Converter] = {"lr": float, "weight_decay": float, "eps": float}
OPTIMIZERS: dict[str, OptimizerKind] = {
    "adamw": OptimizerKind("torch.optim:AdamW", COMMON, {"fused": True}),
    "cosmic": OptimizerKind(
        "cosmic:Cosmic",
        COMMON
        | {"budget": byte_budget, "tier": int, "state_dtype": str, "gate": str, "c_min": float}
        | {"beta_slow": float, "alpha": float, "nonfinite": str, "seed": int}
        | {"matrix_rule": str, "matrix_state_dtype": str, "momentum": float, "ns_steps": int}
        | {"matrix_every": int, "matrix_blocks": int},
        state_bytes=own_state_bytes,
        steps_in_backward=True,
    ),
    "axiom": OptimizerKind(  # state next to nothing
        "cosmic.presets:AXIOM",
        COMMON | {"budget": byte_budget, "gate": str, "snr_floor": float, "seed": int},
        {"detect_anomaly": False},
        state_bytes=own_state_bytes,
        steps_in_backward=True,
    ),
}


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer with its options, as named on the command line."""

    name: str
    options: Mapping[str, Value] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The spec as `parse_spec` reads it; also its name in tables and plots."""
        return ":".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def slug(self) -> str:
        """The spec as part of a file name."""
        return re.sub(r"[^A-Za-z0-9._]+", "-", self.text.replace("%", "pct"))

    @property
    def kind(self) -> OptimizerKind:
        return OPTIMIZERS[self.name]

    def build(
        self,
        model: torch.nn.Module,
        *,
        lr: float,
        weight_decay: float,
        stand_ins: bool = False,
        by_role: bool = False,
    ) -> torch.optim.Optimizer:
        """Make the optimizer of a model's parameters; options of the spec win over the arguments.

        Args:
            stand_ins: of tensors on the CPU in their place that take no memory: to see whether the
                options are right.
            by_role: tell an optimizer that knows roles what each parameter is to the model.

        Raises:
            UsageError: the optimizer refuses a value, with its own message.
        """
        module, _, class_name = self.kind.target.partition(":")
        make: Any = getattr(importlib.import_module(module), class_name)
        arguments = {"lr": lr, "weight_decay": weight_decay, **self.kind.fixed, **self.options}
        of = _stand_in if stand_ins else lambda param: param
        parameters = self._parameters(model, of, by_role=by_role)
        try:
            optimizer: torch.optim.Optimizer = make(parameters, **arguments)
        except (TypeError, ValueError) as error:
            raise UsageError(f"optimizer {self.text!r}: {error}") from error
        return optimizer

    def _parameters(
        self,
        model: torch.nn.Module,
        of: Callable[[torch.nn.Parameter], torch.nn.Parameter],
        *,
        by_role: bool,
    ) -> NamedParameters | list[dict[str, Any]]:
        """Named parameters; a rule for hidden matrices must know which those are."""
        knows_roles = "matrix_rule" in self.kind.options
        if "matrix_rule" not in self.options and not (by_role and knows_roles):
            return [(name, of(param)) for name, param in model.named_parameters()]
        from cosmic.grouping.groups import param_groups

        return [
            {
                "params": list(zip(g["param_names"], map(of, g["params"]), strict=True)),
                "role": g["role"],
            }
            for g in param_groups(model)
        ]


def _stand_in(param: torch.nn.Parameter) -> torch.nn.Parameter:
    zero = torch.zeros((), dtype=param.dtype, device="cpu")
    return torch.nn.Parameter(zero.expand(param.shape), requires_grad=param.requires_grad)


def parse_spec(text: str) -> OptimizerSpec:
    """Read one optimizer, `name` or `name:option=value:option=value`.

    Raises:
        UsageError: an unknown name or option, or a value of the wrong type.
    """
    name, *pairs = text.strip().split(":")
    if name not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {name!r}; known are {', '.join(OPTIMIZERS)}")
    allowed = OPTIMIZERS[name].options
    options: dict[str, Value] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in allowed:
            raise UsageError(
                f"unknown option {key!r} in {text!r}; {name} takes {', '.join(allowed)}"
            )
        if not equals or not value:
            raise UsageError(f"option {key!r} in {text!r} has no value; write {key}=...")
        if key in options:
            raise UsageError(f"option {key!r} is given twice in {text!r}")
        options[key] = _convert(allowed[key], key, value, text)
    return OptimizerSpec(name, options)


def _convert(kind: Converter, key: str, value: str, text: str) -> Value:
    try:
        return kind(value)
    except ValueError:
        wanted = "an integer" if kind is int else "a number"
        raise UsageError(f"option {key!r} in {text!r} takes {wanted}, not {value!r}") from None


def parse_specs(
    text: str, budget: str | None = None, *, release_gradients: bool = False
) -> tuple[OptimizerSpec, ...]:
    """Read a comma-separated list of optimizers.

    Args:
        text: for example ``"adamw,cosmic:budget=10%"``.
        budget: goes to every optimizer that knows the option `budget` and does not set it.
        release_gradients: each must be able to step within backward.

    Raises:
        UsageError: as `parse_spec`; also an optimizer that appears twice, or cannot, or none.
    """
    specs: dict[str, OptimizerSpec] = {}
    for part in text.split(","):
        if not part.strip():
            raise UsageError(f"--optimizer {text!r} has an empty entry; write for example adamw")
        spec = parse_spec(part)
        if budget and "budget" in spec.kind.options and "budget" not in spec.options:
            spec = parse_spec(f"{spec.text}:budget={budget}")
        if release_gradients and not spec.kind.steps_in_backward:
            able = ", ".join(name for name, kind in OPTIMIZERS.items() if kind.steps_in_backward)
            raise UsageError(
                f"optimizer {spec.text!r} cannot release gradients: it does not step within "
                f"backward; with --release-gradients give --optimizer {able}"
            )
        if spec.slug in specs:
            raise UsageError(f"optimizer {spec.text!r} is given twice in {text!r}")
        specs[spec.slug] = spec
    return tuple(specs.values())
