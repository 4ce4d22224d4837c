"""What users touch: the command lines, and the Python interface of `import jax_kdpr`."""
