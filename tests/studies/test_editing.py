"""Edits that a run cannot make."""

from types import SimpleNamespace

import numpy as np
from refusals import refusal_of

from sphere_jax.studies import editing


def test_a_run_without_classes_turns_no_image_into_one(monkeypatch):
    monkeypatch.setattr(editing, "editor", lambda run: SimpleNamespace(conditional=False))
    run, images = SimpleNamespace(workdir="runs/a"), np.zeros((1, 8, 8, 1), np.uint8)
    words = refusal_of(editing.manipulate, run, images, [1], 0)
    assert "the networks of runs/a take none" in words and "conditional=True" in words
    assert "needs labels" in refusal_of(editing.manipulate, run, images, [], 0)
