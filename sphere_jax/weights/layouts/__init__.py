"""Published layouts of weights, one file each."""
