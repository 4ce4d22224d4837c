"""Teaches a one-shot system its own bench, by more shots of the same objects."""
