"""Optimizers of other packages, as compositions of COSMIC's codecs, rules and gates."""

from .casmo import CASMO
from .muon import Muon
from .turboadam import TurboAdam

__all__ = ["CASMO", "Muon", "TurboAdam"]
