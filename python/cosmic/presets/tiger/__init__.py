"""Tiger (package ``tiger-optim``) on Cosmic: its arguments become options of rule and gates."""

from .optimizer import Tiger

__all__ = ["Tiger"]
