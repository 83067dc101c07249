"""What gradient_wires.py is made of: ways to exchange gradients, and ranks that train."""
