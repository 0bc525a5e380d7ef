"""Training: objective, optimiser, the loop, and what a run leaves behind."""
