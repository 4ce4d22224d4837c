"""The way to the optical bench and back."""
