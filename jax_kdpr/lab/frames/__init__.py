"""Camera frames: read, placed on the model's grid, reconstructed, and simulated to rehearse."""
