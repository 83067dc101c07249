"""casmo-optimizer, which the preset is held against; without it these tests fail."""

from __future__ import annotations

try:
    import casmo
except ImportError as error:
    raise ImportError(
        "the tests of cosmic.presets.CASMO compare it with casmo-optimizer 0.3.0, which is not "
        'installed: pip install "cosmic-optim[test]"'
    ) from error

__all__ = ["casmo"]
