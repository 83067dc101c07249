"""The parts of bench/matrix_rule.py: tasks, optimizers, trainings, the search, times, the table."""
