"""Training: the state, the jitted steps on it, and the loop around them."""
