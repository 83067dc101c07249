"""What autograd saves for backward: counted, compressed, or kept in slots by hand."""

from .compressing import compress_activations
from .counting import saved_bytes
from .meter import ActivationMeter
from .slots import ActivationSlots

__all__ = ["ActivationMeter", "ActivationSlots", "compress_activations", "saved_bytes"]
