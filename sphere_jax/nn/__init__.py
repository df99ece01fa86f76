"""Layers: what networks are built from. Nothing here knows spheres, losses or files."""
