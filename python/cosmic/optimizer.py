"""The optimizer: torch.optim's interface over a compiled plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor, nn

from .capital.named import DEFAULT_POLICY
from .capital.policies import Policy
from .state.master import check_has_master
from .state.members import check_param, members, parts_of
from .state.slices import Parts, check_patterns
from .step.backward import StepInBackward
from .step.backward_checks import refuse_wrapper
from .step.copies import CopyTo
from .step.hooks import hooked_where_observed, step_as_it_is
from .step.options import check_whole, drop_whole_options
from .step.ordinary import take_step
from .step.planned import Listener, NonfiniteGradientError
from .threads import forked, one_thread
from .with_checkpoints import WithCheckpoints
from .with_moments import WithMoments
from .with_reports import WithReports

__all__ = ["Cosmic", "Listener", "NonfiniteGradientError"]

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class Cosmic(WithMoments, WithReports, WithCheckpoints):
    """AdamW with compressed state, sized to a byte budget: lighter tiers for what does not fit.

    With ``g`` the gradient (negated by ``maximize``), ``wd`` the weight decay and ``c`` the gate's
    factor, a step at count ``t`` is

        p <- (1 - lr wd) p - lr c u

    Tier 2 (full history), AdamW (arXiv 1711.05101); with ``beta_slow`` the numerator of ``u`` gains
    ``alpha n`` with a slower average ``n``, AdEMAMix (2409.03137):

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        u  = m / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    Tier 1 with a second moment (``rung="tier1:factored"`` and the like), which has no momentum;
    ``x`` is the root mean square of the tensor's ``u0`` at its last step:

        v <- beta2 v + (1 - beta2) g^2
        u0 = g / (sqrt(v) / sqrt(1 - beta2^t) + eps)        u = u0 / max(1, x)

    Tier 1 (two scalars a tensor) and tier 0 (no state):

        tier 1: u = s r sign(g)        tier 0: u = s sign(g)
        s = sqrt((1 - beta1) / (1 + beta1))

    where ``r``, at most 1, is Adam's ratio for the tensor's mean ``|g|``, and ``s`` (0.229
    for 0.9) is the root mean square of Adam's update on gradients that are uncorrelated in time:
    one learning rate, AdamW's, is right for all tiers. Between steps moments are kept by the codecs
    of ``state_dtype`` or ``rung``; the update uses them in full.

    Arithmetic is float32 for parameters in float32, bfloat16 and float16, and float64 for float64;
    complex parameters are stepped as their real view. Results are bit-identical for every ISA and
    thread count.

    Args:
        params: parameters, named parameters or parameter groups. Dense CPU tensors of any layout.
        lr: learning rate; a number or a tensor of one element.
        betas: decay of the averages of the gradient and of its square.
        eps: added to the denominator; of hidden matrices the least norm that they are divided by.
        weight_decay: decoupled weight decay.
        budget: bytes that all state together may take: an int, ``"64MB"``, or a share such as
            ``"10%"`` of AdamW's two fp32 moments for the parameters that have had a gradient. It is
            never exceeded; None is no limit. May be changed between steps. Not a group option.
        policy: what the budget is spent on: ``"calibrated"`` (orthogonalized gradients for hidden
            matrices, a second moment for tables, history for vectors), ``"role"`` (history to
            embeddings and heads, a second moment to hidden matrices), ``"uniform"`` (all alike),
            ``"signal"`` (large gradients first) or a ``Policy`` of your own; ``docs/budget.md`` has
            how they compare. Not a group option.
        min_tier: least tier that the budget may choose for a group's parameters.
        max_tier: highest tier that it may choose for them.
        tier: fixes the tier of all parameters of a group; None lets the budget decide.
        rung: fixes tier and codecs of all parameters of a group by name, in the place of ``tier``
            and ``state_dtype``: ``"tier0"``, ``"tier1"``, ``"tier1:factored"`` (or ``"rowmean"``,
            ``"colmean"``, ``"v4"``, ``"fp32"``), ``"tier2:u2+factored"``. With ``beta_slow`` a
            tier 2 has its slow average, named (``"+slow"``) or not.
        rule: of full history: None, Adam's; ``"softsign"``: of its quotient ``w`` a part is made a
            soft sign, ``u = (1 - b) w / (|w| + kappa) + b w``. Both keep the same moments. Of
            tier 2 alone: what a budget or ``matrix_rule`` gives other rungs has none of it.
        blend: of rule ``"softsign"``: ``b``, from 0 (all sign) to 1 (Adam's).
        kappa: of rule ``"softsign"``: where the soft sign is half of a sign, in units of ``w``.
        blend_to: what ``b`` becomes over a tensor's first ``blend_steps`` steps; None: it stays.
        blend_steps: how many those are.
        blend_schedule: how ``b`` gets there: ``"linear"`` or ``"cosine"``.
        matrix_rule: ``"muon"`` steps hidden matrices by orthogonalized momentum, everything else as
            without it; which tensors those are, the group's ``role`` says (``param_groups(model)``
            finds it), or where it is None, with great caution, names and shapes. ``"off"``: as all
            others. None: off, but under a budget what its policy says.
        lr_scale: a factor on the learning rate, 0 or more, of updates and weight decay alike: one
            for the group, or by role (``{"table": 3.0}``; ``"table"``, ``"matrix"``, ``"vector"``)
            and by part (``"q"``), whose factors multiply. None: 1, but what the policy says for
            tensors whose rung the budget chooses.
        matrix_state_dtype: codec of their momentum: ``"fp32"``, ``"bf16"``, ``"m8"``, ``"m4"``,
            ``"m2"``, ``"m1"`` (32 bits an element to 1), or ``"none"``: each gradient is
            orthogonalized by itself; None: ``"m1"``, or under a budget whatever it buys.
        parts: cuts tensors into parts that are stepped as tensors of their own, each with its rung,
            state, gate and factor, such as the projections of an attention layer: a dimension, 0 or
            1, and how many equal parts there are along it, their sizes, or these by name,
            ``(0, {"q": 768, "k": 256, "v": 256})``; for all of a group's tensors, or a dict of such
            (or None) by parameter name or pattern. None: tensors are whole.
        momentum: decay of hidden matrices' average, which schedulers that cycle ``betas`` leave.
        ns_steps: iterations that orthogonalize it.
        matrix_every: a matrix moves at every so many-th step, by as many steps at once, weight
            decay too; the matrices take turns.
        matrix_blocks: pieces of a matrix's shorter side that are orthogonalized on their own, which
            takes less time.
        state_dtype: codecs of tier 2's first and second moment, joined by a plus, or one for
            both; ``docs/codecs.md`` has their mathematics. First: ``"fp32"``, ``"bf16"``,
            ``"q8"``, ``"u4"``, ``"u2"``, ``"u1"`` (32 bits an element to 1); second: ``"fp32"``,
            ``"bf16"``, ``"q8"``, ``"v4"``, ``"factored"``, ``"rowmean"`` (32 bits to nearly
            none). None: ``"u4+factored"``, a little over 4 bits, of tables ``"u4+v4"``, 8; or
            under a budget whatever it buys. Tensors that cannot be seen as a matrix have ``"v4"``
            in the place of rows and columns, parameters in float64 moments in float64:
            ``tiers()`` shows it.
        min_compress_size: tensors of fewer elements keep moments in ``"fp32"`` where the group's
            are compressed; two numbers are of the first and of the second moment. Not where a
            budget chooses the codecs.
        stochastic_rounding: store parameters in bfloat16 with stochastic rounding, which is
            unbiased; False: to nearest, which loses updates below 1/512 of a parameter.
        master_bits: 24 gives parameters in bfloat16 eight bits more each, in state entry
            ``"master_low"``, which the step reads and rounds to as if they were one number of 24
            bits; the bfloat16 parameter is that number rounded to nearest. They are part of the
            weights: neither ``state_bytes()`` nor a budget counts them, ``master_bytes()`` does.
            Other parameters of the group stay as they are. None: none (``docs/offload.md``).
        gate: a factor on updates; several are joined by a plus and multiplied. ``"snr"`` scales a
            tensor's update down while its gradient is noisy or jumps; ``"agar"`` scales each
            coordinate of tier 2 by how far its gradients agree, after CASMO; ``"trust"`` makes a
            tensor's step ``lr`` times its own size, after LARS and LAMB; ``"agc"`` makes it no more
            than ``agc_clip`` times that (``docs/gates.md``). None: none.
        c_min: the gate's least factor (of ``"agar"``: the least trust).
        robustness: of gate ``"agar"``: the power of the trust; 0 leaves the focus alone.
        rel_floor: of gate ``"agar"``: the least focus.
        role: what a group's tensors are to the model, as ``cosmic.param_groups`` finds it:
            ``"embedding"``, ``"head"``, ``"matrix"``, ``"convolution"``, ``"lora_a"``,
            ``"lora_b"``, ``"norm"``, ``"bias"`` or ``"vector"``, which a budget then goes by;
            a ``"position"`` is a matrix to it. None and ``"other"`` leave that to names and the
            shapes of all parameters.
        trust_coefficient: of gate ``"trust"``: what the ratio of the sizes is multiplied with.
        trust_min: of gate ``"trust"``: the least factor.
        trust_clip: of gate ``"trust"``: the largest factor.
        agc_clip: of gate ``"agc"``: the most that an update's RMS may be, over the parameter's.
        clip_update: the most that an update's RMS may be before the learning rate; None: any.
        param_floor: what a parameter's RMS counts as at least, so that what starts at zero moves.
        norm_decay: of an average of the update's mean square, which they go by; 0: the last one.
        norm_granularity: what has a factor: each ``"tensor"``, each ``"row"`` or the ``"group"``.
        exact: gates act on this step's own gradients, which a pass before the step looks at, not on
            what the last step saw of its.
        beta_slow: decay of a second, slower average of the gradient, such as 0.9999; None: none.
        alpha: weight of the slow average.
        slow_warmup: steps over which ``alpha`` and ``beta_slow`` rise; None: at once.
        maximize: maximize the objective.
        nonfinite: what an infinite or NaN gradient does. ``"propagate"``: it spoils its own
            element, as in AdamW (of a matrix under ``matrix_rule`` all elements, as in Muon);
            counted, and warned of once. ``"raise"``: the step raises
            NonfiniteGradientError; ``"skip"``: the whole step is left out and counted (in
            ``step_in_backward``: the tensor's update). Both look at all gradients before anything
            changes, which reads 4 bytes a parameter more. Not a group option.
        seed: of the random bits of stochastic rounding. Not a group option.
        reallocate_every: steps between two looks at the gradients for masks; the step after a look
            spends the budget anew. Not a group option.
        global_sums: of parameters whose shards are on several ranks (DTensors): False, sums of a
            tensor (its gates', tier 1's, columns of a factored second moment) are those of each
            rank's shard, and a step exchanges nothing; True, they are added up over the ranks, in
            their order. Not a group option.

    Raises:
        ValueError: for an option out of range; at the first step, for parameters that overlap and
            for a budget that cannot hold what fixed rungs, floors and gates demand.
        UnsupportedTensorError: a TypeError and RuntimeError, for tensors that are not dense CPU
            tensors of a floating dtype.

    ``step`` raises before anything has changed; only what a controller or a listener raises, or a
    warning that is turned into an error, comes after a step that was taken in full.
    """

    #: Options of a group that a preset adds, or has other defaults for.
    _preset: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        budget: int | str | None = None,
        policy: str | Policy = DEFAULT_POLICY,
        tier: int | None = None,
        min_tier: int | None = None,
        max_tier: int | None = None,
        rung: str | None = None,
        rule: str | None = None,
        blend: float = 0.2,
        kappa: float = 0.3,
        blend_to: float | None = None,
        blend_steps: int = 0,
        blend_schedule: str = "linear",
        role: str | None = None,
        lr_scale: float | Mapping[str, float] | None = None,
        matrix_rule: str | None = None,
        matrix_state_dtype: str | torch.dtype | None = None,
        parts: Parts | None = None,
        momentum: float = 0.95,
        ns_steps: int = 3,
        matrix_every: int = 1,
        matrix_blocks: int = 1,
        state_dtype: str | torch.dtype | None = None,
        gate: str | None = None,
        c_min: float = 0.1,
        robustness: float = 1.0,
        rel_floor: float = 0.1,
        trust_coefficient: float = 1.0,
        trust_min: float = 0.0,
        trust_clip: float = 10.0,
        agc_clip: float = 10.0,
        clip_update: float | None = None,
        param_floor: float = 1e-3,
        norm_decay: float = 0.0,
        norm_granularity: str = "tensor",
        exact: bool = False,
        beta_slow: float | None = None,
        alpha: float = 5.0,
        slow_warmup: int | None = None,
        maximize: bool = False,
        min_compress_size: int | tuple[int, int] = 4096,
        stochastic_rounding: bool = True,
        master_bits: int | None = None,
        nonfinite: str = "propagate",
        seed: int = 0,
        reallocate_every: int = 100,
        global_sums: bool = False,
    ) -> None:
        self.budget = budget
        self.policy = policy
        self.nonfinite = nonfinite
        self.seed = seed
        self.reallocate_every = reallocate_every
        self.global_sums = global_sums
        self._reset()
        check_whole(self._whole_options())
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "tier": tier, "min_tier": min_tier, "max_tier": max_tier,
            "rung": rung, "rule": rule, "blend": blend, "kappa": kappa, "blend_to": blend_to,
            "blend_steps": blend_steps, "blend_schedule": blend_schedule, "role": role,
            "lr_scale": dict(lr_scale) if isinstance(lr_scale, Mapping) else lr_scale,
            "state_dtype": state_dtype, "gate": gate, "c_min": c_min,
            "robustness": robustness, "rel_floor": rel_floor, "exact": exact,
            "trust_coefficient": trust_coefficient, "trust_min": trust_min,
            "trust_clip": trust_clip, "agc_clip": agc_clip,
            "clip_update": clip_update, "param_floor": param_floor, "norm_decay": norm_decay,
            "norm_granularity": norm_granularity,
            "matrix_rule": matrix_rule, "matrix_state_dtype": matrix_state_dtype,
            "parts": dict(parts) if isinstance(parts, Mapping) else parts,
            "momentum": momentum, "ns_steps": ns_steps, "matrix_every": matrix_every,
            "matrix_blocks": matrix_blocks, "beta_slow": beta_slow, "alpha": alpha,
            "slow_warmup": slow_warmup,
            "min_compress_size": min_compress_size, "stochastic_rounding": stochastic_rounding,
            "master_bits": master_bits,
        }  # fmt: skip
        super().__init__(params, {**defaults, **self._preset})
        check_patterns(self.param_groups)

    # ---- torch.optim's interface ----------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; options that it lacks are the optimizer's.

        Raises:
            ValueError, TypeError: for an option out of range, one of the whole optimizer, or a
                parameter that cannot be stepped. The group is not added then.
        """
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1], len(self.param_groups) - 1)
            drop_whole_options(self.param_groups[-1], self._whole_options())
            group = self.param_groups[-1]
            for member in members(self.param_groups):
                if member.group == len(self.param_groups) - 1:
                    check_param(member.param, member.label)
                    parts_of(member, group)
            check_has_master(group, len(self.param_groups) - 1)
            if group["parts"] is not self.defaults["parts"]:
                check_patterns([group])
        except Exception:
            del self.param_groups[-1]
            raise
        self._compiled = None
        if self._backward is not None:
            self._backward.attach()

    @overload
    def step(self, closure: None = None, *, copy_to: CopyTo | None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float], *, copy_to: CopyTo | None = None) -> float: ...
    @hooked_where_observed
    def step(
        self, closure: Callable[[], float] | None = None, *, copy_to: CopyTo | None = None
    ) -> float | None:
        """Take one step on every parameter that has a gradient.

        Args:
            closure: recomputes the loss and the gradients; called first, with gradients enabled.
            copy_to: bfloat16 or float16 CPU tensors, of any layout and pinned or not, in which the
                same pass leaves the new parameters as ``copy.copy_(param)`` would: a sequence, one
                or None for each parameter in the order of the groups, or a dict by parameter. Of a
                parameter without a gradient the copy stays as it is. Other tensors may be given
                at each step.

        Returns:
            The closure's loss, or None.

        Raises:
            ValueError, TypeError: for a gradient or parameter that cannot be stepped, or an option
                out of range. Nothing has changed then.
            NonfiniteGradientError: with ``nonfinite="raise"``. Nothing has changed then.
        """
        if torch.compiler.is_compiling():
            return step_as_it_is(self, closure, {} if copy_to is None else {"copy_to": copy_to})
        if self._backward is not None and copy_to is not None:
            raise ValueError(
                "step(copy_to=...) comes too late after step_in_backward(), which has stepped the "
                "parameters; give copy_to to step_in_backward()"
            )
        if self._backward is not None and (ended := self._backward.end_step(closure)):
            if ended.counts:
                self._after_step(ended.compiled, ended.transitions)
            return None
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if forked():
            with one_thread():
                take_step(self, copy_to)
        else:
            take_step(self, copy_to)
        return loss

    def step_in_backward(
        self,
        model: nn.Module | None = None,
        *,
        max_norm: float | None = None,
        clip: str = "previous",
        copy_to: CopyTo | None = None,
    ) -> StepInBackward:
        """From now on step each parameter within ``backward``, as soon as its gradient is complete,
        and free the gradient: gradients take the memory of one tensor instead of one model.

        ``step()`` is still to be called once after every backward: it ends the step. Parameters and
        state are bit-identical to the ordinary step's. What changes is in ``docs/design.md``: no
        accumulation over several backwards, no closure, no ``nonfinite="raise"``, no GradScaler, no
        DistributedDataParallel, whose mean comes after the step, and nothing left for
        ``clip_grad_norm_`` to clip, for which there is ``max_norm``.

        Args:
            model: checked to have the optimizer's parameters and no others that train; None: no
                check.
            max_norm: clip gradients to this norm.
            clip: ``"previous"`` scales all gradients by what the norm of the whole gradient was a
                step ago, as this one's is not known yet (at the first step as ``"tensor"``);
                ``"tensor"`` clips each tensor to ``max_norm`` on its own.
            copy_to: as of ``step``; the handle's attribute ``copy_to`` takes other tensors between
                steps.

        Returns:
            A handle: ``handle.remove()``, or the end of a ``with`` block, leaves the mode.

        Raises:
            ValueError: for an option out of range, ``nonfinite="raise"``, or a model whose
                parameters are not the optimizer's or that is a DistributedDataParallel.
            RuntimeError: if the mode is on already, or for a wrapper that passes for the optimizer,
                such as Lightning's.
        """
        refuse_wrapper(self)
        if self._backward is not None:
            raise RuntimeError("step_in_backward() is on already; remove() its handle first")
        self._backward = mode = StepInBackward(self, model, max_norm, clip, copy_to)
        return mode
