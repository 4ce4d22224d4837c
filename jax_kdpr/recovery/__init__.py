"""From a coded diffraction pattern to an image: spectral estimate, solvers, network."""
