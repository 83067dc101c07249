"""A slow, readable twin of the compiled core, in NumPy.

Every file states one part of the mathematics once more, element by element and in the order of
operations that the documentation fixes, so that parameters and state can be compared bit for bit.
NumPy never contracts a multiplication and an addition into one rounding, and neither may the core.

- ``adam``, ``softsign``, ``belief``, ``rmsprop``, ``sign``: the rules. ``ademamix``: the schedules
  of the slow average.
- ``scalar_sign``, ``snr_gate``, ``trust_focus``, ``norms``: the numbers that a step leaves for the
  next one.
- ``codec``: what a codec is; ``codecs``: all of them by name. ``plain``; ``blockwise`` with
  ``signed_levels``, ``midrise``, ``aligned_bits``, ``aligned_roots`` and ``log_levels`` (over
  ``elementary``) over ``packed``; ``factored`` over ``matrix``; ``ustate`` and ``costate``, which
  see the whole tensor.
- ``history``: a tensor's moments and how a step decodes and encodes them.
- ``random_bits``, ``storage``: random numbers from a counter, types of stored numbers.
- ``sums``: sums in a fixed order. ``quantization``: plain 4 and 8 bit integers.
- ``tensor``: all of it put together, one tensor at a time.
- ``tiger``: what preset Tiger composes of these, in float64, and ``tiger_literal``: the formulas of
  the package. (Bits are no subject of theirs.)
"""
