"""TinyMix, a small model of one layer, and the optimizers that bench/tinymix.py times on it."""
