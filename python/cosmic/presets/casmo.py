"""CASMO: AdamW whose update is scaled by how well a parameter group's gradients agree."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import _core
from ..optimizer import Cosmic, Params
from ..step.options import check_group
from ..step.plans import Compiled, Transition
from .casmo_options import (
    GATE,
    OPTIONS,
    check_options,
    check_state_options,
    complete,
    level_of,
)

__all__ = ["CASMO"]

_log = logging.getLogger("cosmic.casmo")


class CASMO(Cosmic):
    """Confident Adaptive Selective Momentum Optimizer, as casmo-optimizer 0.3 has it.

    AdamW with a factor ``c`` on the update (not on the weight decay), from the adaptive gradient
    alignment ratio of the new moments. With a group's ``m`` and ``v``, clamped to
    ``agar_clamp_factor`` times their mean magnitudes plus ``eps``,

        n = max(v - m^2, eps)        a = mean(m^2 / (m^2 + n + eps))

    is near 1 where gradients repeat, near 0 where they are noise. The first ``tau_init_steps``
    samples of ``a`` calibrate their group: ``tau`` is their median, held within ``tau_clip_range``,
    ``sigma`` their standard deviation, at least 0.01, and ``c0`` 0.1, 0.3 or 0.5 where that is more
    than 0.5, more than 0.3 or less of their mean. From then on

        c = c0 + (1 - c0) / (1 + exp(-(a - tau) / sigma))

    and before it ``c = max(a, c_min)``.

    Args:
        params: parameters, named parameters or parameter groups. Dense CPU tensors of any layout.
        lr: learning rate; a number or a tensor of one element.
        betas: decay of the averages of the gradient and of its square.
        eps: added to the denominators.
        weight_decay: decoupled weight decay.
        tau_init_steps: samples that calibrate a group, at least 50. None:
            ``max(500, int(50 / (1 - beta1)))``, at most a fifth of ``total_steps``. A group with
            ``betas`` or ``total_steps`` of its own has the optimizer's number, unless it says None.
        tau_clip_range: bounds of ``tau``.
        c_min: least factor before calibration.
        granularity: ``"group"``: one sample a step of all of a group's parameters that have a
            gradient; ``"parameter"``: each of them is sampled and scaled on its own, in order,
            under the calibration that the group shares and that may come in mid-step.
        agar_clamp_factor: of outliers among the moments; None: no clamp.
        total_steps: of the whole training, see ``tau_init_steps``.
        exact: scale each step by its own moments. They are measured before anything changes, in a
            pass over gradients and moments and another over the blocks of 128 that a clamp
            reaches, so that NaN and infinite gradients raise NonfiniteGradientError. False: one
            pass as AdamW's, scaled by what the step before has seen, within clamps from the means
            of that step. The first step of a parameter has factor 1 and no clamps; non-finite
            gradients do what ``nonfinite`` says.
        log_level: level of Python's logging, by name or number, at which a calibration is reported
            to the logger ``cosmic.casmo``. ``"INFO"`` is silent unless logging was set up to show
            it. Not a group option.
        state_dtype: codecs of the moments, see ``Cosmic``: ``"fp32"``, ``"bf16"``, ``"q8"``,
            ``"q8+v4"`` or ``"u4+v4"``. The moments that are looked at are the step's, in full.
        maximize: as in ``Cosmic``.
        min_compress_size: as in ``Cosmic``.
        stochastic_rounding: as in ``Cosmic``.
        nonfinite: as in ``Cosmic``.
        seed: as in ``Cosmic``.
        global_sums: as in ``Cosmic``; parameters whose shards are on several ranks need it.

    All but ``log_level``, ``nonfinite``, ``seed`` and ``global_sums`` are group options and may
    change between steps. A checkpoint of casmo-optimizer itself, with moments in float32, loads. An
    element whose moment is not finite counts as noise, and a sample that is not finite is left out
    and has the least factor.

    Raises:
        ValueError, TypeError: as ``Cosmic`` does, and for options out of range.

    Source: casmo-optimizer 0.3.0 (package index); its ``CASMO._compute_agar``, ``_calibrate_tau``
    and ``_compute_confidence`` are the same arithmetic in PyTorch.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        tau_init_steps: int | None = None,
        tau_clip_range: tuple[float, float] = (0.01, 0.5),
        c_min: float = 0.1,
        granularity: str = "group",
        agar_clamp_factor: float | None = 10.0,
        total_steps: int | None = None,
        *,
        exact: bool = True,
        log_level: int | str = "INFO",
        state_dtype: str | torch.dtype | None = "fp32",
        maximize: bool = False,
        min_compress_size: int = 4096,
        stochastic_rounding: bool = True,
        nonfinite: str = "propagate",
        seed: int = 0,
        global_sums: bool = False,
    ) -> None:
        self.log_level = log_level
        level_of(log_level)
        preset = {
            "tau_init_steps": tau_init_steps, "tau_clip_range": tau_clip_range,
            "granularity": granularity, "agar_clamp_factor": agar_clamp_factor,
            "total_steps": total_steps, "exact": exact, "gate": GATE,
        }  # fmt: skip
        own = {**preset, "betas": betas}
        complete(own, "CASMO's options")
        self._preset = {**preset, "tau_init_steps": own["tau_init_steps"]}
        super().__init__(
            params, lr, betas, eps, weight_decay, c_min=c_min, state_dtype=state_dtype,
            maximize=maximize, min_compress_size=min_compress_size,
            stochastic_rounding=stochastic_rounding, nonfinite=nonfinite, seed=seed,
            global_sums=global_sums,
        )  # fmt: skip

    def _reset(self) -> None:
        super()._reset()
        self._calibrations: list[_core.GateMemory] = []  # one a parameter group
        self._reported: set[int] = set()  # groups whose calibration needs no report any more

    # ---- what has been seen ---------------------------------------------------------------

    def calibrations(self) -> list[dict[str, Any]]:
        """What each parameter group knows: the entries of ``state_dict()["_group_states"]`` and the
        last sample and factor, ``current_agar`` and ``current_confidence`` (None before the first;
        with granularity ``"parameter"`` the last parameter's, ``gate_factors()`` has all).

        Entries are ``tau``, ``tau_initialized``, ``agar_buffer`` (the samples so far),
        ``agar_buffer_maxlen``, ``c_min``, and of the samples that calibrated ``agar_mean``,
        ``agar_std``, ``agar_median``, ``agar_p10``, ``agar_p90``.
        """
        return [
            {
                **calibration.state(),
                **calibration.seen(),
            }
            for calibration in self._calibrations
        ]

    @property
    def _group_states(self) -> dict[int, dict[str, Any]]:
        """What code that was written for casmo-optimizer reads; a copy."""
        return dict(enumerate(self.calibrations()))

    @property
    def _step_count(self) -> int:
        """Steps taken, likewise."""
        return self._steps

    # ---- torch.optim's interface ----------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._calibrations.append(_calibration(self.param_groups[-1]))

    add_param_group.__doc__ = Cosmic.add_param_group.__doc__

    def step_in_backward(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused: a group's gradients are looked at together, when all of them are there."""
        raise RuntimeError(
            "CASMO cannot step in backward: it looks at all gradients of a group at once; call "
            "step() after backward, or use Cosmic"
        )

    def state_dict(self) -> dict[str, Any]:
        """As Cosmic's, with casmo-optimizer's entries ``"_group_states"`` and ``"_step_count"``."""
        saved = super().state_dict()
        states = enumerate(calibration.state() for calibration in self._calibrations)
        return {**saved, "_group_states": dict(states), "_step_count": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned, or what casmo-optimizer's, Cosmic's or
        ``torch.optim.AdamW``'s did; what those do not know stays as the groups have it, and a
        calibration that is not there begins anew.

        Raises:
            ValueError: as ``Cosmic.load_state_dict``, for codecs whose moments CASMO cannot look at
                (load ``to_adamw_state_dict()`` of that optimizer instead), and for calibrations
                that do not fit the groups or options. Nothing has changed then.
        """
        saved = _with_own_options(state_dict, self.param_groups)
        calibrations = _loaded(saved, self.param_groups)
        steps = saved.get("_step_count", 0)
        if type(steps) is not int or steps < 0:
            raise ValueError(f"the state_dict has _step_count {steps!r}; expected an int >= 0")
        super().load_state_dict(saved)
        if "cosmic" not in saved and "_step_count" in saved:
            self._steps = steps
        self._take_calibrations(calibrations)

    def __getstate__(self) -> dict[str, Any]:
        states = [calibration.state() for calibration in self._calibrations]
        return {**super().__getstate__(), "log_level": self.log_level, "_calibrations": states}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({k: v for k, v in state.items() if k != "_calibrations"})
        if "_calibrations" in state:  # unpickled or copied
            pairs = zip(self.param_groups, state["_calibrations"], strict=True)
            self._take_calibrations([_calibration(group, saved) for group, saved in pairs])

    def _take_calibrations(self, calibrations: list[_core.GateMemory]) -> None:
        self._calibrations = calibrations
        self._reported = {k for k, known in enumerate(calibrations) if known.settled}

    # ---- the plan --------------------------------------------------------------------------

    def _check_group(self, group: dict[str, Any], index: int) -> None:
        where = f"param_groups[{index}]"
        # A group of the user's may say tau_init_steps=None; one that lacks options is refused.
        if {"tau_init_steps", "total_steps", "betas"} <= set(group):
            complete(group, where)
        if self.budget is not None:
            raise ValueError(
                f"budget is {self.budget!r}; expected None: CASMO needs full history of all "
                "parameters; state_dtype takes fewer bytes for it"
            )
        check_group(group, index, self._whole_options(), gates=(GATE,))
        check_options(group, where)
        check_state_options(group, where)

    def _whole_options(self) -> dict[str, Any]:
        return {**super()._whole_options(), "log_level": self.log_level}

    def _run(
        self, compiled: Compiled, copies: list[Tensor | None] | None = None
    ) -> list[Tensor] | None:
        if len(self._calibrations) != len(self.param_groups):
            raise RuntimeError(
                f"there are {len(self.param_groups)} parameter groups, but calibrations of "
                f"{len(self._calibrations)}; groups come by add_param_group(), and to take some "
                "away make a new optimizer"
            )
        level_of(self.log_level)  # which the step that calibrates would stumble over
        for index, group in enumerate(self.param_groups):
            check_options(group, f"param_groups[{index}]")
            calibration = self._calibrations[index]
            calibration.set_options(*_memory_options(group))
            compiled.plan.set_memory(index, calibration)
        stepped = super()._run(compiled, copies)
        if refused := compiled.plan.refused:
            raise self._nonfinite_error(refused)
        return stepped

    def _after_step(self, compiled: Compiled, transitions: Sequence[Transition]) -> None:
        super()._after_step(compiled, transitions)
        for index, calibration in enumerate(self._calibrations):
            if index not in self._reported and calibration.settled:
                self._reported.add(index)
                self._report(index, calibration.state())

    def _report(self, index: int, state: dict[str, Any]) -> None:
        _log.log(
            level_of(self.log_level),
            "param_groups[%d] calibrated at step %d: tau %.4g, c_min %.1f (agar: mean %.4g, std "
            "%.4g, median %.4g, p10 %.4g, p90 %.4g)",
            index, self._steps, state["tau"], state["c_min"], state["agar_mean"],
            state["agar_std"], state["agar_median"], state["agar_p10"], state["agar_p90"],
        )  # fmt: skip


def _memory_options(group: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether each tensor is a sample, and the rest of what the gate's memory of a group reads."""
    known = ("tau_init_steps", "tau_clip_range", "c_min", "agar_clamp_factor")
    return group["granularity"] == "parameter", {key: group[key] for key in known}


def _calibration(group: dict[str, Any], saved: dict[str, Any] | None = None) -> _core.GateMemory:
    calibration = _core.GateMemory(GATE, *_memory_options(group))
    if saved is not None:
        calibration.load(saved)
    return calibration


def _with_own_options(saved: dict[str, Any], groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A state dict whose groups have CASMO's options, the own ones where it comes from another."""
    known = (*OPTIONS, "gate", "maximize")
    filled = [
        {**{key: own[key] for key in known}, **group, "gate": GATE}
        for own, group in zip(groups, saved["param_groups"], strict=False)
    ]
    out = {**saved, "param_groups": filled + saved["param_groups"][len(filled) :]}
    if "cosmic" in saved and "_group_states" not in saved:  # what its gate kept is another gate's
        out["state"] = {
            index: {key: value for key, value in state.items() if key != "gate"}
            for index, state in saved["state"].items()
        }
    return out


def _loaded(saved: dict[str, Any], groups: Sequence[dict[str, Any]]) -> list[_core.GateMemory]:
    """Calibrations out of a state dict, new ones for groups of which it has none."""
    states = saved.get("_group_states", {})
    if not isinstance(states, dict):
        raise ValueError(f"the state_dict's '_group_states' is {states!r}; expected a dict")
    by_group = {str(key): state for key, state in states.items()}  # as text, where it was JSON
    if unknown := set(by_group) - {str(k) for k in range(len(groups))}:
        raise ValueError(
            f"the state_dict has '_group_states' of groups {sorted(unknown)}; this optimizer has "
            f"{len(groups)} groups"
        )
    out = []
    for index, (own, group) in enumerate(zip(groups, saved["param_groups"], strict=False)):
        merged = {**own, **group}
        check_options(merged, f"the state_dict's param_groups[{index}]")
        out.append(_calibration(merged, by_group.get(str(index))))
    return out
