"""Mask files: what their numbers mean, where they lie on a panel, how they are read back."""
