"""Names of parameters, and what wrappers of modules add to them."""

from __future__ import annotations

__all__ = ["plain_name", "unwrapped_name"]

#: What wrappers call the module that they wrap: a model of one's own may have a layer "module".
_OUTERMOST = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_ANYWHERE = tuple(word for word in _OUTERMOST if word != "module")


def unwrapped_name(name: str) -> str:
    """A parameter's name without what wrappers add to it (``torch.compile``, DataParallel, DDP,
    FSDP, checkpointing of activations)."""
    parts = name.split(".")
    while parts and parts[0] in _OUTERMOST:
        parts = parts[1:]
    return ".".join(part for part in parts if part not in _ANYWHERE)


def plain_name(name: str) -> str:
    """A parameter's name without what wrappers and parametrizations add to it."""
    parts = unwrapped_name(name).split(".")
    if len(parts) > 2 and parts[-3] == "parametrizations" and parts[-1] == "original":
        parts = [*parts[:-3], parts[-2]]
    return ".".join(parts)
