"""What an optimizer keeps of each parameter: made, checked, changed, saved and loaded."""
