"""Every option of a run, and how a config file becomes checked dataclasses."""
