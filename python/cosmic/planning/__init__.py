"""What a training takes besides weights and state, and which settings fit a machine."""
