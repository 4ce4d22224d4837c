"""Masks as files: panel images, heights, phases; written, read back and verified."""
