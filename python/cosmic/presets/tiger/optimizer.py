"""Tiger: a soft sign of Adam's update, scaled to the size of the parameter."""

from __future__ import annotations

import operator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import _core
from ...controllers import FFNBalance
from ...logging import EventLog
from ...optimizer import Cosmic, Params
from ...state.groups import check_dicts
from ...step.backward import StepInBackward
from ...step.options import OWN_GATES, check_group
from ...step.plans import Compiled
from .checkpoint import as_adamw, is_tigers, with_own_options
from .groups import take_in
from .literal import COMPAT, GATE, averages_of, set_average
from .loops import loops_of, nonfinite_of
from .metrics import WithMetrics
from .options import MADE_OF, OPTIONS, check_options, derived, one_of
from .staging import from_saved, to_save

__all__ = ["Tiger"]


class Tiger(WithMetrics):
    """Tiger (package ``tiger-optim``), with its arguments and its defects repaired.

    With ``m_hat`` and ``v_hat`` Adam's moments, corrected for their start, of a tensor ``p``:

        w = m_hat / (sqrt(v_hat) + eps)              b = sign_blend
        u = (1 - b) w / (|w| + sign_tau) + b w
        c = min(1, agc_clip R / rms(u))              R = max(rms(p), param_floor)
        q = min(trust_clip, R / (c rms(u)))
        k = min(1, rms_clip_threshold / rms(u))
        p <- (1 - lr wd) p - lr q c k u

    where ``c``, ``q`` and ``k`` are 1 unless asked for. By default ``q`` is: a step is ``lr`` times
    as long as its tensor, whatever the gradient's scale. It is
    ``Cosmic`` with rule ``softsign`` and gates ``agc`` and ``trust``: checkpoints, ``tiers()``,
    ``state_bytes()``, controllers, bit-identical results for every ISA and thread count. What
    differs from the package, argument by argument, is in ``docs/from-tiger.md``.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: learning rate; with the trust ratio that share of a tensor's own size.
        betas: decay of the averages of the gradient and of its square.
        eps: added to the root of the second moment.
        weight_decay: decoupled weight decay, not scaled by any factor.
        factored: keep the second moment of matrices by rows and columns.
        mom_dtype: codec of the first moment, and of the second where that is not factored:
            ``"fp32"``, ``"bf16"``, ``"q8"`` or ``"u4"`` (beside it ``"v4"``).
        precond_alpha: 1: the power of the preconditioner. ``w`` is divided by it once.
        sign_mode: ``"softsign"``, or ``"sign"`` for a hard one.
        sign_tau: width of the soft sign in units of ``w``: where half of the sign is reached. None:
            0.3, but 1e-3 (of the momentum) under ``compat``.
        sign_blend: weight of ``w`` itself, from 0 (the sign alone) to 1 (Adam).
        blend_to: what ``sign_blend`` becomes over ``blend_steps`` of the tensor's steps.
        blend_steps: 0: it stays.
        blend_schedule: ``"cosine"`` or ``"linear"``.
        use_trust_ratio: whether ``q`` is not 1.
        trust_clip: largest ratio.
        trust_min: least ratio.
        trust_space: ``"update"``.
        trust_ema_beta: decay of each tensor's own average of ``rms(u)^2``; 0: this step's.
        agc_clip: as above; 0: none.
        agc_eps: added to the parameter's norm there under ``compat`` alone.
        param_floor: least root mean square that a parameter counts with.
        rms_clip_threshold: as above; 0: none.
        rms_clip_granularity: what ``k`` is of: ``"param"``, ``"row"`` (first dimension), or
            ``"group"``: all of a group's tensors together. The last two without ``c`` and ``q``.
        exact: factors are of this step's ``u``, which a pass before the step measures. False: of
            the last step's, in one pass.
        compat: ``"2.2"``: the formulas as that release has them, defects and all, in the core's
            arithmetic, for runs that are to be reproduced (``docs/from-tiger.md`` says how far).
            Not a group option.
        state_dtype: codecs of both moments, see ``Cosmic``, in the place of ``mom_dtype`` and
            ``factored``; None: made of these.
        skip_if_nonfinite: leave out a step whose gradients are not all finite.
        nonfinite: as in ``Cosmic``, in the place of ``skip_if_nonfinite``; None: made of it.
        maximize: as in ``Cosmic``.
        min_compress_size: as in ``Cosmic``: smaller tensors keep both moments as they are.
        stochastic_rounding: as in ``Cosmic``.
        seed: as in ``Cosmic``.
        global_sums: as in ``Cosmic``; under ``compat`` parameters whose shards are on several ranks
            need it.
        others: Tiger's arguments of feedback and profile (``docs/from-tiger.md`` lists them), and
            those that have no effect here.

    All but ``nonfinite``, ``skip_if_nonfinite``, ``seed``, ``global_sums`` and what is in
    ``others`` are group options and may change between steps; groups also take Tiger's
    ``lr_scale``, ``block_tag``, ``qkv_rules``, ``qkv_trust_split``, ``qkv_lr_scales`` and
    ``block_trust_chunks``.

    Raises:
        ValueError, TypeError: as ``Cosmic`` does, for options out of range, and for values whose
            effect was a defect, saying what to do.

    Source: the README and the formulas of tiger-optim 2.2; the trust ratio is LAMB's (arXiv
    1904.00962), the clip NFNets' (2102.06171) and Adafactor's (1804.04235).
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-4,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        factored: bool = True,
        mom_dtype: str = "fp32",
        precond_alpha: float = 1.0,
        sign_mode: str = "softsign",
        sign_tau: float | None = None,
        sign_blend: float = 0.2,
        blend_to: float = 0.6,
        blend_steps: int = 0,
        blend_schedule: str = "cosine",
        use_trust_ratio: bool = True,
        trust_clip: float = 10.0,
        trust_min: float = 0.0,
        trust_space: str = "update",
        trust_ema_beta: float = 0.0,
        agc_clip: float = 0.0,
        agc_eps: float = 1e-12,
        param_floor: float = 1e-3,
        rms_clip_threshold: float = 0.0,
        rms_clip_granularity: str = "param",
        exact: bool = True,
        compat: str | None = None,
        state_dtype: str | torch.dtype | None = None,
        skip_if_nonfinite: bool = True,
        nonfinite: str | None = None,
        maximize: bool = False,
        min_compress_size: int | tuple[int, int] = 4096,
        stochastic_rounding: bool = True,
        seed: int = 0,
        global_sums: bool = False,
        **others: Any,
    ) -> None:
        if compat not in (None, COMPAT):
            raise ValueError(f"compat is {compat!r}; expected None or {COMPAT!r}")
        self.compat, self.loops = compat, loops_of(others)
        if sign_tau is None:
            sign_tau = 0.3 if compat is None else 1e-3
        self._preset = {
            "factored": factored, "mom_dtype": mom_dtype, "precond_alpha": precond_alpha,
            "sign_mode": sign_mode, "sign_tau": sign_tau, "sign_blend": sign_blend,
            "blend_to": blend_to, "blend_steps": blend_steps, "blend_schedule": blend_schedule,
            "use_trust_ratio": use_trust_ratio, "trust_clip": trust_clip, "trust_min": trust_min,
            "trust_space": trust_space, "trust_ema_beta": trust_ema_beta, "agc_clip": agc_clip,
            "agc_eps": agc_eps, "param_floor": param_floor,
            "rms_clip_threshold": rms_clip_threshold, "rms_clip_granularity": rms_clip_granularity,
        }  # fmt: skip
        check_options(self._preset, "Tiger's options", compat)
        whole = derived(self._preset, compat)
        if state_dtype is None:
            state_dtype = whole["state_dtype"]
        self._preset = {**self._preset, **whole, "state_dtype": state_dtype}
        if nonfinite is None:
            nonfinite = nonfinite_of(skip_if_nonfinite)
        super().__init__(
            params, lr, betas, eps, weight_decay, exact=exact, maximize=maximize,
            min_compress_size=min_compress_size, stochastic_rounding=stochastic_rounding,
            nonfinite=nonfinite, seed=seed, global_sums=global_sums,
        )  # fmt: skip
        for guard in self.loops.guards(self.param_groups):
            self.add_controller(guard)
        if self.loops.auto_ffn_asym:
            self._attach_balance()
        if self.loops.profiler_enabled:
            Path(self.loops.profiler_path).parent.mkdir(parents=True, exist_ok=True)
            log = EventLog(self.loops.profiler_path, every=self.loops.profiler_interval)
            log.attach(self)

    def _reset(self) -> None:
        super()._reset()
        self._followed: list[Any] = []  # Tiger's options, as Cosmic's were last made of them
        self._made: list[dict[str, Any]] = []  # those, by group
        self._balances = (
            False  # a group has asked for a balance, and the other one is still to come
        )
        # under ``compat``: each group, and the average of its trust ratios
        self._averages: list[tuple[dict[str, Any], _core.GateMemory]] = []

    # ---- torch.optim's interface ----------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; options that it lacks are the optimizer's.

        Raises:
            ValueError, TypeError: as ``Cosmic.add_param_group``, and for an option of Tiger's that
                is out of range, or an option of Cosmic's that Tiger's make otherwise. The group is
                not added then.
        """
        if not isinstance(param_group, dict):
            super().add_param_group(param_group)  # which says so
        where = f"param_groups[{len(self.param_groups)}]"
        whole = {**self.defaults, **param_group}
        check_options(whole, where, self.compat)
        made = derived(whole, self.compat)
        codecs = {"factored", "mom_dtype", "state_dtype"} & set(param_group)
        if not codecs or param_group.get("state_dtype") is not None:
            del made["state_dtype"]  # the optimizer's, or the group's own
        for name in [name for name in made if name in param_group]:
            if not one_of(made[name])(param_group[name]):
                source = MADE_OF.get(name)
                raise ValueError(
                    f"{where}: {name} is {param_group[name]!r}; Tiger makes it {made[name]!r}"
                    + (f" of {source}: set it there" if source else ": leave it out")
                    + ". cosmic.Cosmic has other rules and gates"
                )
            del made[name]
        param_group.update(made)  # the user's dict is the group, as torch has it
        self._balances |= bool(param_group.pop("auto_ffn_asym", False))
        super().add_param_group(param_group)
        self._made.append(derived(whole, self.compat))
        tags = {group.get("tag") for group in self.param_groups}
        if self._balances and {"ffn_up", "ffn_down"} <= tags:
            self._attach_balance()
            self._balances = False

    def _attach_balance(self) -> None:
        """Keep feed-forward layers at a ratio, once."""
        for word in ("ffn_up", "ffn_down"):
            if not any(word in (g.get("tag"), g.get("role")) for g in self.param_groups):
                raise ValueError(
                    f"auto_ffn_asym is True, and no group is tagged {word!r}; expected groups of "
                    "cosmic.param_groups(model, tags=True), or auto_ffn_asym=False"
                )
        if not any(isinstance(known, FFNBalance) for known in self.controllers):
            self.add_controller(self.loops.balance())

    def state_dict(self) -> dict[str, Any]:
        """As Cosmic's; with an entry ``"tiger"`` of staged changes that wait and, under
        ``compat``, averages of the trust ratios."""
        self._follow_options()
        kept: dict[str, Any] = {}
        if self._pending:
            kept["pending"] = to_save(self._pending)
        if self.compat:
            kept["averages"] = [average.state() for average in self._average_by_group()]
        return {**super().state_dict(), **({"tiger": kept} if kept else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned, or what Cosmic's, ``torch.optim.AdamW``'s or Tiger's
        own did (see ``load_tiger_state_dict``). What was saved under ``compat`` needs it here.

        Raises:
            ValueError, TypeError: as ``Cosmic.load_state_dict``, and for an option of Tiger's that
                is out of range. Nothing has changed then.
        """
        if is_tigers(state_dict):
            self.load_tiger_state_dict(state_dict)
        else:
            self._load(state_dict)

    def load_tiger_state_dict(self, state_dict: dict[str, Any], steps: int | None = None) -> None:
        """Load a checkpoint of Tiger's own: ``m``, and ``v`` or ``vr`` and ``vc``.

        Its groups' options come along, but for slices, which it keys by ``id(parameter)``, and,
        without ``compat``, ``sign_tau``, which is in other units: these stay as the groups here
        have them, and a width that differs is told in a warning.

        Args:
            steps: that had been taken, which Tiger does not save: its averages start at zero, and
                the count says how far from it they have come. None: far.

        Raises:
            ValueError: as ``load_state_dict``, for a checkpoint of another optimizer, and for
                options of Tiger's that are refused here. Nothing has changed then.
        """
        if not is_tigers(state_dict):
            raise ValueError(
                "the state_dict is not one of Tiger's own, whose states have 'm' and 'v', or 'm', "
                "'vr' and 'vc'; load_state_dict takes what Cosmic and AdamW have saved"
            )
        self._load(as_adamw(state_dict, steps))

    def _load(self, saved: dict[str, Any]) -> None:
        kept = saved.get("tiger", {})
        if not isinstance(kept, dict):
            raise ValueError(f"the state_dict's 'tiger' is {kept!r}; expected a dict")
        waiting = from_saved(kept.get("pending", []), self.param_groups)
        groups = with_own_options(saved, self.param_groups, self.compat)
        averages = averages_of(groups, kept.get("averages", ())) if self.compat else []
        super().load_state_dict({**saved, "param_groups": groups})
        self._pending = waiting
        self._averages = list(zip(self.param_groups, averages, strict=False))
        self._made = [derived(group, self.compat) for group in self.param_groups]
        self._followed = []

    def __getstate__(self) -> dict[str, Any]:
        kept = ("compat", "_balances", "_made")
        averages = [average.state() for average in self._average_by_group()]
        own = {**{name: getattr(self, name) for name in kept}, "_averages": averages}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({k: v for k, v in state.items() if k != "_averages"})
        if "_averages" in state:  # unpickled or copied
            groups = self.param_groups if self.compat else []
            averages = averages_of(groups, state["_averages"])
            self._averages = list(zip(groups, averages, strict=True))

    def step_in_backward(self, *args: Any, **kwargs: Any) -> StepInBackward:
        if self.compat:
            raise RuntimeError(
                f"Tiger cannot step in backward under compat={self.compat!r}, whose tensors share "
                "an average of trust ratios in their order; call step() after backward"
            )
        return super().step_in_backward(*args, **kwargs)

    step_in_backward.__doc__ = Cosmic.step_in_backward.__doc__

    # ---- the plan --------------------------------------------------------------------------

    def _ready(self, *, expecting: bool = False) -> Compiled:
        check_dicts(self.param_groups)
        self._follow_options()
        return super()._ready(expecting=expecting)

    def _run(
        self, compiled: Compiled, copies: list[Tensor | None] | None = None
    ) -> list[Tensor] | None:
        if self.compat:
            for index, average in enumerate(self._average_by_group()):
                set_average(average, self.param_groups[index])
                compiled.plan.set_memory(index, average)
        return super()._run(compiled, copies)

    def _average_by_group(self) -> list[_core.GateMemory]:
        """A new one of a group that was put in by hand; none without ``compat``."""
        known = {id(group): average for group, average in self._averages}
        groups = self.param_groups if self.compat else []
        self._averages = [(g, known.get(id(g)) or averages_of([g])[0]) for g in groups]
        return [average for _, average in self._averages]

    def _follow_options(self) -> None:
        """Make Cosmic's options of those that have changed since the last step. What others have
        set, such as a controller, stays where Tiger's option has not."""
        now = [group.get(name) for group in self.param_groups for name in OPTIONS]
        # By identity: what was spoiled may be a tensor, whose == is no bool.
        if len(now) == len(self._followed) and all(map(operator.is_, now, self._followed)):
            return
        for index, group in enumerate(self.param_groups):
            check_options(group, f"param_groups[{index}]", self.compat)
        made = [derived(group, self.compat) for group in self.param_groups]
        before = self._made if len(self._made) == len(made) else [{}] * len(made)
        for group, new, old in zip(self.param_groups, made, before, strict=True):
            group.update({name: x for name, x in new.items() if name not in old or x != old[name]})
        self._made, self._followed = made, now

    def _check_group(self, group: dict[str, Any], index: int) -> None:
        where = f"param_groups[{index}]"
        take_in(group, where, self.compat)
        check_options(group, where, self.compat)
        gates = OWN_GATES if self.compat is None else (GATE,)
        check_group(group, index, self._whole_options(), gates=gates, maker="Tiger")

    def _whole_options(self) -> dict[str, Any]:
        loops = {name: x for name, x in asdict(self.loops).items() if name != "auto_ffn_asym"}
        skips = {"skip_if_nonfinite": self.nonfinite == "skip", "compat": self.compat}
        return {**super()._whole_options(), **loops, **skips}
