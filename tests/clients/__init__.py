"""COSMIC inside the packages that people train with, each as it is installed."""
