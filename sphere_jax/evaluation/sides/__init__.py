"""The two sides of a comparison: images from anywhere, or statistics that were stored."""
