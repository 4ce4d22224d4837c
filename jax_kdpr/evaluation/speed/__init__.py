"""Time and memory of the parts, counted and compared with PyTorch."""
