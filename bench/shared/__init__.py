"""What several programs share: timing, and trainings tuned and compared."""
