"""What ranks.py is made of: processes that share a model out, and what they measure."""
