"""Where the model looked, and whether that is so."""
