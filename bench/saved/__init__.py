"""What `bench/activations.py` measures: models, ways to hold what autograd saves, trainings."""
