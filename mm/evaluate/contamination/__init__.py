"""What of an evaluation set was in the training data, and what that does to the score."""
