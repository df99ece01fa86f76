"""Train state, optimizer, checkpoints, and the training loop."""
