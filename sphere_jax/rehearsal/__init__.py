"""Programs of a run compiled for devices that are not there, and what the compiler says of them."""
