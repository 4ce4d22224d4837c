"""Times and memory of the parts, counted and beside PyTorch."""
