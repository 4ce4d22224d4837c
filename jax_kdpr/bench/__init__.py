"""What `python -m jax_kdpr.benchmark` is made of: cases, counts, timing, the PyTorch twin."""
