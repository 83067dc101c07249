"""The step: plans made, run and adopted, after backward or within it."""
