"""Who gets which state: what it is worth, what it costs, and what a budget buys."""
