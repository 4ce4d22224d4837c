"""What a person touches: command lines, and the Python of `import jax_kdpr`."""
