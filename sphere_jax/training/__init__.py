"""State, optimizer, checkpoints, and the one loop."""
