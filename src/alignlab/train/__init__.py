"""Training: one loop for every objective, exact checkpoints, one journal."""
