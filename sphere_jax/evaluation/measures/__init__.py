"""Measures of samples against a reference, one file each, found by name. What one is: `base.py`."""
