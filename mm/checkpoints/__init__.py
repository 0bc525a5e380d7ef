"""Reading and writing weights: data only, strict both ways, and whole or not at all."""
