"""Training on several machines: gradients of DistributedDataParallel, compressed on the wire."""

from .agreement import DisagreementError
from .hooks import compress_gradients, compress_hook
from .state import CompressionState
from .wire import CODECS, bytes_of

__all__ = [
    "CODECS",
    "CompressionState",
    "DisagreementError",
    "bytes_of",
    "compress_gradients",
    "compress_hook",
]
