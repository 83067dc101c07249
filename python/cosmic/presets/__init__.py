"""Optimizers of other packages, as compositions of COSMIC's codecs, rules and gates, and options of
Cosmic by a word."""

from .axiom import AXIOM, AXIOM_DDP
from .casmo import CASMO
from .muon import Muon
from .tiger import Tiger
from .turboadam import TurboAdam
from .words import preset

__all__ = ["AXIOM", "AXIOM_DDP", "CASMO", "Muon", "Tiger", "TurboAdam", "preset"]
