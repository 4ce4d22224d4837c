"""How good a trained system or a mask is: scores, pictures, tolerances, uniqueness, speed."""
