"""One file per system: its objective, and how it generates. What a method is: `base.py`."""
