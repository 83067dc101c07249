"""Resident memory (RSS) of this process and its peak over a stretch of time."""

import os
import re
import threading
from pathlib import Path
from types import TracebackType

from cosmic.errors import require_packages

STATUS = Path("/proc/self/status")
STATM = Path("/proc/self/statm")
CLEAR_REFS = Path("/proc/self/clear_refs")
SAMPLE_SECONDS = 0.005


def rss_bytes() -> int:
    """Resident memory now, in bytes.

    Raises:
        MissingPackagesError: the system does not tell, and psutil, which would, is not installed.
    """
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        require_packages("measuring memory on this system", ["psutil"], "demo")
        import psutil

        return int(psutil.Process().memory_info().rss)


def process_peak_bytes() -> int:
    """The most resident memory that this process has had, or has where the system does not tell."""
    return _kernel_peak() or rss_bytes()


class PeakRss:
    """Context manager for the peak of resident memory within it; then `.bytes`.

    `.bytes_before` is the process's peak up to then, which Linux forgets when asked for a new one.
    Linux keeps the exact peak and lets a process reset it. Elsewhere a thread samples.
    """

    def __init__(self) -> None:
        self.bytes = self.bytes_before = 0
        self._done = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> "PeakRss":
        self.bytes = rss_bytes()
        self.bytes_before = process_peak_bytes()
        if not _reset_kernel_peak():
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sampler is None:
            self.bytes = max(self.bytes, _kernel_peak())
        else:
            self._done.set()
            self._sampler.join()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, rss_bytes())


def _reset_kernel_peak() -> bool:
    try:
        CLEAR_REFS.write_text("5")  # see proc(5): resets the peak and nothing else
    except OSError:
        return False
    return _kernel_peak() > 0


def _kernel_peak() -> int:
    try:
        match = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match.group(1)) * 1024 if match else 0
