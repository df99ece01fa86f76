"""One run: its folder, its stages, drawing, scoring and reporting."""
