"""Matched comparisons: arms that differ in named values alone, what they share, and their page."""
