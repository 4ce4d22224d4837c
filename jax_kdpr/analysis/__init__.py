"""What is found out about trained systems and masks: tolerances, ambiguities, solvers."""
