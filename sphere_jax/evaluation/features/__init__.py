"""Feature networks of scores, one file each, found by name. What one is: `base.py`."""
