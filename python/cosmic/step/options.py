"""Options of the whole optimizer and of its parameter groups, checked."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from .. import _core
from ..capital.budget import check_budget
from ..capital.ladder import OFF
from ..capital.named import policy_named
from ..capital.policies import Policy
from ..parts import GATES, HISTORY_RULES, RULES
from ..rungs import Rung, parse_matrix_dtype, parse_state_dtype
from ..state.gates import names_of, rule_read
from ..state.groups import check_dicts
from ..state.master import check_master_bits
from ..state.roles import ROLES, check_role
from ..state.slices import check_parts, part_names

__all__ = [
    "MATRIX_RULES",
    "WHOLE_OPTIONS",
    "PlanOptions",
    "check_cadence",
    "check_group",
    "check_nonfinite",
    "check_whole",
    "drop_whole_options",
]

#: Options that belong to the whole optimizer.
WHOLE_OPTIONS = ("budget", "policy", "nonfinite", "seed", "reallocate_every", "global_sums")

#: Gates that an option may name.
OWN_GATES = (None, *(gate.name for gate in GATES.values() if gate.by_name))

#: Rules of full history that a group may ask for: others come with their gates.
OWN_RULES = tuple(name for name, rule in HISTORY_RULES.items() if name and rule.gate == "none")

#: Rules that step whole matrices.
MATRIX_RULES = tuple(dict.fromkeys(rule.variant for rule in RULES.values() if rule.matrix))

#: Options of a group that the core does not read.
_OPTIONS = (
    "tier", "min_tier", "max_tier", "rung", "state_dtype", "gate", "exact", "min_compress_size",
    "role", "lr_scale", "matrix_rule", "matrix_state_dtype", "parts", "rule", "master_bits",
)  # fmt: skip


class PlanOptions(NamedTuple):
    """The options that a plan is made for: one that changes makes another plan."""

    budget: int | str | None
    policy: str | Policy
    seed: int
    global_sums: bool
    groups: list[tuple[Any, ...]]

    @classmethod
    def of(
        cls,
        budget: int | str | None,
        policy: str | Policy,
        seed: int,
        global_sums: bool,
        groups: Sequence[dict[str, Any]],
    ) -> PlanOptions:
        check_dicts(groups)
        # Spelled out, because every step asks; what is missing differs from what is None.
        structure = [
            (g.get("tier", ...), g.get("min_tier", ...), g.get("max_tier", ...),
             g.get("rung", ...), g.get("state_dtype", ...), g.get("gate", ...),
             g.get("exact", ...), g.get("beta_slow", ...), g.get("min_compress_size", ...),
             g.get("role", ...), g.get("matrix_rule", ...), g.get("matrix_state_dtype", ...),
             _as_it_is(g.get("parts", ...)), g.get("rule", ...), _as_it_is(g.get("lr_scale", ...)),
             g.get("master_bits", ...),
             *_implying(g))
            for g in groups
        ]  # fmt: skip
        return cls(budget, policy, seed, global_sums, structure)

    def differ(self, before: PlanOptions | None) -> bool:
        """Whether a plan for ``before`` must be made anew."""
        try:
            return self != before
        except (RuntimeError, ValueError):  # of a tensor or an array, whose == is no bool
            return True


def check_whole(whole: Mapping[str, Any]) -> None:
    """Check the options of the whole optimizer, by their names.

    Raises:
        ValueError, TypeError: naming the option, what it is and what was expected.
    """
    check_budget(whole["budget"])
    _check_policy(policy_named(whole["policy"]))
    check_nonfinite(whole["nonfinite"])
    seed, global_sums = whole["seed"], whole["global_sums"]
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed!r}; expected an int from 0 to 2**64 - 1")
    check_cadence(whole["reallocate_every"])
    if type(global_sums) is not bool:
        raise ValueError(f"global_sums is {global_sums!r}; expected True or False")


def check_cadence(reallocate_every: object) -> None:
    """Raise ValueError unless ``reallocate_every`` is a number of steps."""
    if not isinstance(reallocate_every, int) or reallocate_every < 1:
        raise ValueError(f"reallocate_every is {reallocate_every!r}; expected an int >= 1")


def check_nonfinite(mode: object) -> None:
    """Raise ValueError unless ``mode`` is one of the three."""
    if not isinstance(mode, str) or mode not in ("propagate", "raise", "skip"):
        raise ValueError(f"nonfinite is {mode!r}; expected 'propagate', 'raise' or 'skip'")


def check_group(
    group: dict[str, Any],
    index: int,
    whole: Mapping[str, object],
    gates: Sequence[str | None] = OWN_GATES,
    maker: str = "Cosmic",
) -> None:
    """Check every option of a parameter group, which may repeat those of the whole
    optimizer: wrappers copy all that a constructor has been given into every group.

    Args:
        whole: options of the whole optimizer.
        gates: what ``gate`` may be.
        maker: the optimizer's name.

    Raises:
        ValueError: naming the option, what it is and what was expected.
    """
    where = f"param_groups[{index}]"
    _check_repeated(group, where, whole, maker)
    _core.check_group(group, index)
    for option in _OPTIONS:
        if option not in group:
            raise ValueError(f"{where} has no {option!r}; was it removed?")
    _check_tiers(group, where)
    if group["rung"] is not None:
        _check_rung(group, where)
    _check_sizes(group["min_compress_size"], where)
    _check_gate(group, where, gates)
    _check_rule(group, where)
    _check_matrix(group, where)
    check_parts(group, where)
    check_master_bits(group, where)
    check_role(group["role"], where)
    _check_lr_scale(group["lr_scale"], where, part_names(group["parts"]))
    try:
        if group["state_dtype"] is not None:
            parse_state_dtype(group["state_dtype"])
    except ValueError as error:
        raise ValueError(f"{where}['state_dtype']: {error}") from None


#: Options that ask for a gate.
_IMPLYING = tuple(gate.implied_by for gate in GATES.values() if gate.implied_by)


def _implying(group: Mapping[str, Any]) -> tuple[bool, ...]:
    """Whether each of these asks for its gate: how much it asks for, the core reads."""
    return tuple(group.get(option) is not None for option in _IMPLYING)


def _as_it_is(option: object) -> object:
    """An option as it is now: a dict or a list may be changed in place."""
    if isinstance(option, dict):
        return [(key, _as_it_is(value)) for key, value in option.items()]
    return [_as_it_is(value) for value in option] if isinstance(option, list | tuple) else option


def _check_lr_scale(scale: Any, where: str, parts: Collection[str]) -> None:
    known = [*ROLES, *sorted(parts)]
    # no subclass of dict: torch.load(weights_only=True) knows none of most of them
    if scale is not None and not _are_factors(
        scale if type(scale) is dict else {ROLES[0]: scale}, known
    ):
        by = "role or part" if parts else "role"
        raise ValueError(
            f"{where}['lr_scale'] is {scale!r}; expected None, a finite number >= 0, or a dict "
            f"of such numbers by {by} ({', '.join(map(repr, known))})"
        )


def _are_factors(scale: Mapping[Any, Any], known: Collection[str] = ROLES) -> bool:
    """Whether it has numbers >= 0 by names that are known."""
    numbers = [x for x in scale.values() if isinstance(x, int | float) and type(x) is not bool]
    inside = all(0 <= x <= sys.float_info.max for x in numbers)
    return inside and len(numbers) == len(scale) and set(scale) <= set(known)


def _check_policy(policy: Policy) -> None:
    """What a policy may have beside the members of every policy."""
    scale = getattr(policy, "lr_scale", None)
    if scale is not None and not (isinstance(scale, Mapping) and _are_factors(scale)):
        raise ValueError(
            f"policy {policy.name!r}: lr_scale is {scale!r}; expected a mapping of roles "
            f"({', '.join(map(repr, ROLES))}) to finite numbers >= 0"
        )
    for method in ("matrix_rule", "why"):
        if not callable(getattr(policy, method, print)):
            raise TypeError(
                f"policy {policy.name!r}: {method} is {getattr(policy, method)!r}; expected a "
                "method"
            )


def drop_whole_options(group: dict[str, Any], whole: Mapping[str, object]) -> None:
    """Take options of the whole optimizer out of a group, where they would mislead."""
    for option in whole:
        group.pop(option, None)


def _check_repeated(
    group: dict[str, Any], where: str, whole: Mapping[str, object], maker: str
) -> None:
    for option, own in whole.items():
        if option in group and not _same(group[option], own):
            raise ValueError(
                f"{where} has {option!r}, which is an option of the whole optimizer: "
                f"{maker}(params, {option}=...). It is {group[option]!r} here and {own!r} there"
            )


def _same(a: object, b: object) -> bool:
    try:
        return a is b or (type(a) is type(b) and bool(a == b))
    except (RuntimeError, TypeError, ValueError):  # of a tensor or an array, whose == is no bool
        return False


def _check_sizes(size: object, where: str) -> None:
    sizes = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    if any(type(one) is not int or one < 0 for one in sizes):
        raise ValueError(
            f"{where}['min_compress_size'] is {size!r}; expected an int >= 0, or two: of the first "
            "and of the second moment"
        )


def _check_gate(group: dict[str, Any], where: str, gates: Sequence[str | None]) -> None:
    asked = group["gate"]
    names = asked.split("+") if isinstance(asked, str) else [asked]
    if not all(isinstance(name, str | None) and name in gates for name in names) or (
        len(set(names)) < len(names)
    ):
        *others, last = map(repr, gates)
        expected = f"{', '.join(others)} or {last}" if others else last
        several = ", or several joined by a plus" if len(gates) > 2 else ""
        of_preset = (
            f". {asked!r} is a preset's: what that has saved, it loads under the same arguments "
            "(compat, where it had one)"
        )
        raise ValueError(
            f"{where}['gate'] is {asked!r}; expected {expected}{several}"
            + (of_preset if isinstance(asked, str) and _is_presets(asked) else "")
        )
    if type(group["exact"]) is not bool:
        raise ValueError(f"{where}['exact'] is {group['exact']!r}; expected True or False")
    reads = RULES.get(rule_read(asked) or "")
    if reads and not reads.slow and group["beta_slow"] is not None:
        raise ValueError(
            f"{where} has gate {group['gate']!r} and beta_slow {group['beta_slow']!r}; expected "
            "None for one of them: the gate knows no slow average"
        )


def _is_presets(gate: str) -> bool:
    """Whether it is one that no option of Cosmic's own may name."""
    return gate in GATES and GATES[gate].remembers


def _check_rule(group: dict[str, Any], where: str) -> None:
    variant = group["rule"]
    if variant is None:
        return
    if not isinstance(variant, str) or variant not in OWN_RULES:
        expected = " or ".join(map(repr, OWN_RULES))
        raise ValueError(f"{where}['rule'] is {variant!r}; expected None or {expected}")
    if not HISTORY_RULES[variant].slow and group["beta_slow"] is not None:
        raise ValueError(
            f"{where} has rule {variant!r} and beta_slow {group['beta_slow']!r}; expected None for "
            "one of them: the rule knows no slow average"
        )
    if rule_read(group["gate"]):
        raise ValueError(
            f"{where} has rule {variant!r} and gate {group['gate']!r}, which reads the moments of "
            "another rule; expected None for one of them"
        )
    rung = Rung.parse(group["rung"]) if group["rung"] is not None else None
    if rung is not None and rung.variant not in ("", variant):
        raise ValueError(
            f"{where} has rule {variant!r} and rung {group['rung']!r}, which another rule steps; "
            "expected None for one of them"
        )


def _check_matrix(group: dict[str, Any], where: str) -> None:
    rule = group["matrix_rule"]
    if rule is not None and rule not in (OFF, *MATRIX_RULES):
        expected = ", ".join(map(repr, (OFF, *MATRIX_RULES[:-1])))
        expected += f" or {MATRIX_RULES[-1]!r}"
        raise ValueError(f"{where}['matrix_rule'] is {rule!r}; expected None, {expected}")
    try:
        if group["matrix_state_dtype"] is not None:
            known = rule if rule in MATRIX_RULES else MATRIX_RULES[0]
            parse_matrix_dtype(group["matrix_state_dtype"], known)
    except ValueError as error:
        raise ValueError(f"{where}['matrix_state_dtype']: {error}") from None
    if rule is not None and group["matrix_state_dtype"] == "none":
        for option in ("tier", "min_tier"):
            if group[option] == 2:
                raise ValueError(
                    f"{where} has {option} 2 and matrix_state_dtype 'none', which is of tier 1; "
                    "expected None for one of them, or a codec"
                )


def _check_tiers(group: dict[str, Any], where: str) -> None:
    for option in ("tier", "min_tier", "max_tier"):
        tier = group[option]
        if tier is not None and (type(tier) is not int or tier not in (0, 1, 2)):
            raise ValueError(f"{where}[{option!r}] is {tier!r}; expected None, 0, 1 or 2")
    least, most = group["min_tier"], group["max_tier"]
    if least is not None and most is not None and least > most:
        raise ValueError(f"{where} has min_tier {least} above max_tier {most}")
    if group["tier"] is not None and (least is not None or most is not None):
        raise ValueError(
            f"{where} has tier {group['tier']} and min_tier {least} or max_tier {most}; expected "
            "None for what does not fix it (in the group, if the bound is the optimizer's)"
        )


def _check_rung(group: dict[str, Any], where: str) -> None:
    name = group["rung"]
    try:
        rung = Rung.parse(name)
    except ValueError as error:
        raise ValueError(f"{where}['rung']: {error}") from None
    for option in ("tier", "min_tier", "max_tier"):
        if group[option] is not None:
            raise ValueError(
                f"{where} has {option} {group[option]!r} and rung {name!r}; expected None for one "
                f"of them (in the group, if {option} is the optimizer's)"
            )
    if rung.m_slow != "none" and group["beta_slow"] is None:
        raise ValueError(
            f"{where}['rung'] is {name!r}, which has a slow average, but 'beta_slow' is None; give "
            "'beta_slow', or a rung without '+slow'"
        )
    needed = RULES[rung.rule].gate
    if needed not in ("none", *names_of(group["gate"])):
        give = f"give gate {needed!r}, or" if GATES[needed].by_name else "which a preset has; give"
        raise ValueError(
            f"{where}['rung'] is {name!r}, which goes with gate {needed!r} alone, but 'gate' is "
            f"{group['gate']!r}; {give} a rung without '+{rung.variant}'"
        )
