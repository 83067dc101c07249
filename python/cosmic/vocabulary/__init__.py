"""The vocabulary's share of a step: embedding, head and cross-entropy in blocks of rows."""
