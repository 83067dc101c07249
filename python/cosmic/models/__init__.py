"""Language models by name: known architectures, configurations, weights."""
