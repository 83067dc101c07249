"""The policies by name."""

from __future__ import annotations

from collections.abc import Mapping

from .calibrated import CalibratedPolicy
from .policies import Policy, RolePolicy, SignalPolicy, UniformPolicy

__all__ = ["DEFAULT_POLICY", "POLICIES", "policy_named"]

POLICIES: Mapping[str, Policy] = {
    policy.name: policy
    for policy in (CalibratedPolicy(), RolePolicy(), SignalPolicy(), UniformPolicy())
}
DEFAULT_POLICY = CalibratedPolicy.name


def policy_named(policy: str | Policy) -> Policy:
    """The policy of this name, or the policy itself.

    Raises:
        ValueError: for a name that is not known.
        TypeError: for an object that is no policy.
    """
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise ValueError(f"policy is {policy!r}; expected {', '.join(map(repr, POLICIES))}")
        return POLICIES[policy]
    if isinstance(policy, type) or not isinstance(policy, Policy):
        raise TypeError(
            f"policy is {policy!r}; expected {', '.join(map(repr, POLICIES))} or an object with "
            "name, uses_signal and worths(candidates)"
        )
    return policy
