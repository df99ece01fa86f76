"""What every other room may use: errors, files, progress, processes."""
