"""Published weights to our parameters: one file a network, one function a published layout."""
