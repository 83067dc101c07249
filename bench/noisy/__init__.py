"""The parts of bench/noise.py: its tasks, its optimizers, and what becomes of the runs."""
