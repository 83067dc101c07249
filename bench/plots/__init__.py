"""The pictures, each named after its program, and what they share."""
