"""Muon: orthogonalized momentum for hidden matrices, with torch.optim.Muon's arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..optimizer import Cosmic, Params
from ..rungs import Rung, matrix_codecs, parse_matrix_dtype
from ..state.members import Member, members
from ..state.slices import Parts
from ..state.torch_muon import MUON_OPTIONS, muon_exported
from ..step.options import check_group
from ..step.plans import Compiled

__all__ = ["Muon"]

_RULE = "muon"
#: Options of Cosmic that would give a parameter another rung.
_FIXED = ("tier", "min_tier", "max_tier", "beta_slow")


class Muon(Cosmic):
    """Muon, as ``torch.optim.Muon`` has it, with the momentum in as few bits as wanted.

    For the hidden matrices of a network; embeddings, heads, norms and biases belong to another
    optimizer. (``Cosmic(param_groups(model), matrix_rule="muon")`` is one for both.) With
    momentum ``mu``,

        m <- mu m + (1 - mu) g        w = mu m + (1 - mu) g (``nesterov``), or m
        p <- (1 - lr wd) p - lr scale orth(w)

    ``orth`` takes ``w`` over its Frobenius norm, at least ``eps``, and ``ns_steps`` times

        x <- a x + b (x x^T) x + c (x x^T)^2 x

    which brings all singular values near 1. Here that is done in float32, where torch does it in
    bfloat16, and its bits are the same for every ISA and thread count.

    Args:
        params: parameters, named parameters or parameter groups: real matrices on the CPU in
            float32, bfloat16 or float16, of any layout. torch takes two dimensions and no more;
            here more are flattened into the second, as of a convolution.
        lr: learning rate; a number or a tensor of one element.
        weight_decay: decoupled weight decay.
        momentum: decay of the average of the gradient.
        nesterov: look ahead with the average.
        ns_coefficients: ``a``, ``b`` and ``c``. None: those of Polar Express (arXiv 2505.16932),
            others in each iteration, of ``w`` over ``|w w^T|^(1/2)``: nearer to singular values of
            1, in fewer iterations.
        eps: least norm that a matrix is divided by.
        ns_steps: iterations, 1 to 99.
        adjust_lr_fn: ``"original"`` (or None) scales by ``sqrt(max(1, rows / columns))``,
            ``"match_rms_adamw"`` by ``0.2 sqrt(max(rows, columns))``, which AdamW's learning rate
            and weight decay suit.
        state_dtype: codec of the momentum: ``"fp32"``, ``"bf16"``, ``"m8"``, ``"m4"``, ``"m2"``,
            ``"m1"`` (32 bits an element to 1). A step uses the new momentum in full.
        parts: as in ``Cosmic``.
        matrix_every: as in ``Cosmic``.
        matrix_blocks: as in ``Cosmic``.
        maximize: as in ``Cosmic``.
        min_compress_size: matrices of fewer elements keep the momentum in ``"fp32"``.
        stochastic_rounding: as in ``Cosmic``. torch rounds to nearest.
        nonfinite: as in ``Cosmic``; what is not finite spoils its whole matrix.
        seed: as in ``Cosmic``.

    All but ``nonfinite`` and ``seed`` are group options and may change between steps.

    Raises:
        ValueError, TypeError: as ``Cosmic`` does, and for a parameter that is no matrix, naming it.

    Source: ``torch.optim.Muon`` (torch 2.13), whose defaults these are.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] | None = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        state_dtype: str | torch.dtype = "fp32",
        parts: Parts | None = None,
        matrix_every: int = 1,
        matrix_blocks: int = 1,
        maximize: bool = False,
        min_compress_size: int = 4096,
        stochastic_rounding: bool = True,
        nonfinite: str = "propagate",
        seed: int = 0,
    ) -> None:
        self._preset = {
            "nesterov": nesterov, "ns_coefficients": ns_coefficients,
            "adjust_lr_fn": adjust_lr_fn, "state_dtype": state_dtype,
        }  # fmt: skip
        super().__init__(
            params, lr, eps=eps, weight_decay=weight_decay, momentum=momentum, ns_steps=ns_steps,
            parts=parts, matrix_every=matrix_every, matrix_blocks=matrix_blocks,
            maximize=maximize, min_compress_size=min_compress_size,
            stochastic_rounding=stochastic_rounding, nonfinite=nonfinite, seed=seed,
        )  # fmt: skip
        # Cosmic's, which has no meaning here: a scheduler such as OneCycleLR then cycles `momentum`
        self._betas = self.defaults.pop("betas")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict) and "betas" not in self.defaults:
            param_group.setdefault("betas", self._betas)
        super().add_param_group(param_group)

    add_param_group.__doc__ = Cosmic.add_param_group.__doc__

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned, or what ``torch.optim.Muon``'s, Cosmic's or AdamW's
        did; options that those do not have stay as the groups have them. Of AdamW's moments the
        first becomes the momentum.

        Raises:
            ValueError: as ``Cosmic.load_state_dict``. Nothing has changed then.
        """
        groups = state_dict["param_groups"]
        filled = [
            {**group, **_own_options(own, group)}
            for own, group in zip(self.param_groups, groups, strict=False)
        ]
        super().load_state_dict({**state_dict, "param_groups": filled + groups[len(filled) :]})

    def to_muon_state_dict(self) -> dict[str, Any]:
        """The state as ``torch.optim.Muon.load_state_dict`` takes it, to go on with that. The
        momentum is decoded to float32.

        Raises:
            ValueError: for ``maximize`` and ``ns_coefficients=None``, for which it has no place.
        """
        return muon_exported(self.param_groups, self.state)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_betas": self._betas}

    # ---- the plan --------------------------------------------------------------------------

    def _ready(self, *, expecting: bool = False) -> Compiled:
        for index, group in enumerate(self.param_groups):
            _check_told(group, f"param_groups[{index}]")
        return super()._ready(expecting=expecting)

    def _check_group(self, group: dict[str, Any], index: int) -> None:
        where = f"param_groups[{index}]"
        _check_told(group, where)
        if self.budget is not None:
            raise ValueError(
                f"budget is {self.budget!r}; expected None: all of Muon's parameters are stepped "
                "alike; state_dtype takes fewer bytes for them"
            )
        for option in _FIXED:
            if group.get(option) is not None:
                raise ValueError(
                    f"{where}[{option!r}] is {group[option]!r}; expected None: Muon steps all its "
                    "parameters by one rule"
                )
        rung = _rung_for(group, where)
        check_group({**group, "rung": rung, "state_dtype": None}, index, self._whole_options())
        group["rung"] = rung
        if index < len(self.param_groups) and group is self.param_groups[index]:
            for member in members(self.param_groups):
                if member.group == index:
                    _check_matrix(member)


def _check_told(group: dict[str, Any], where: str) -> None:
    """Without them the core would take other defaults than Muon's."""
    for option in (*MUON_OPTIONS, "state_dtype"):
        if option not in group:
            raise ValueError(
                f"{where} has no {option!r}; was it removed, or the group appended by hand? "
                "(add_param_group fills in what it lacks)"
            )


def _rung_for(group: dict[str, Any], where: str) -> str:
    """The rung that a group's ``state_dtype`` asks for."""
    asked, given = group["state_dtype"], group.get("rung")
    try:
        rung = Rung(2, parse_matrix_dtype(asked, _RULE), variant=_RULE)
        if rung.m == "none":
            raise ValueError("Muon has a momentum")
    except ValueError:
        expected = ", ".join(map(repr, matrix_codecs(_RULE)))
        raise ValueError(
            f"{where}['state_dtype'] is {asked!r}; expected {expected}, torch.float32 or "
            "torch.bfloat16"
        ) from None
    if given is not None and given not in _rungs():
        raise ValueError(
            f"{where}['rung'] is {given!r}; expected None: Muon's option state_dtype makes it "
            f"{rung.name!r}"
        )
    return rung.name


def _rungs() -> list[str]:
    return [Rung(2, codec, variant=_RULE).name for codec in matrix_codecs(_RULE)]


def _check_matrix(member: Member) -> None:
    """Refuse at once what is no matrix; a lazy module's parameter, when it has a shape."""
    param = member.param
    if is_lazy(param):
        return
    if param.dim() < 2 or param.numel() == 0 or param.is_complex():
        kind = "complex, " if param.is_complex() else ""
        raise ValueError(
            f"{member.label} is {kind}of shape {tuple(param.shape)}; expected a real matrix: two "
            "dimensions or more, with elements. Give others to an optimizer such as Cosmic"
        )
    if param.dtype == torch.float64:
        raise ValueError(
            f"{member.label} is {param.dtype}; expected float32, bfloat16 or float16, as matrices "
            "are multiplied in float32"
        )


def _own_options(own: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """Options for a saved group: what it lacks, and its codec where it is another optimizer's."""
    missing = {key: own[key] for key in MUON_OPTIONS if key not in saved}
    if saved.get("rung") in _rungs() and "nesterov" in saved:
        return missing
    fixed = {key: own[key] for key in ("state_dtype", "rung", "betas", *_FIXED)}
    return {**missing, **fixed}
