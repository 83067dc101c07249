"""The tasks that constants are fitted and judged on, their training, and what it gave."""
