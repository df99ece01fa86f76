"""What would not fit into memory is refused before it is read."""

import io

import numpy as np
from PIL import Image
from refusals import refusal_of

from sphere_jax.config.options import DataOptions
from sphere_jax.data import memory
from sphere_jax.data.source import Source, Split, load
from sphere_jax.methods.on_latents import encoded_split
from sphere_jax.tokenizers.base import Tokenizer

MEMINFO = "MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:    2000000 kB\n"


def leaves(monkeypatch, count):
    monkeypatch.setattr(memory, "available_bytes", lambda: count)


def test_available_memory_is_what_the_system_and_the_container_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert memory.available_bytes() is None
    (tmp_path / "meminfo").write_text(MEMINFO)
    assert memory.available_bytes() == 2_048_000_000
    (tmp_path / "memory.current").write_text("600\n")
    for limit, expected in (("max\n", 2_048_000_000), ("1000\n", 400), ("500\n", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert memory.available_bytes() == expected
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 300\nactive_file 7\n")
    for limit, expected in (("1000\n", 700), ("max\n", 2_048_000_000)):
        (tmp_path / "memory.max").write_text(limit)
        assert memory.available_bytes() == expected  # files that were read give way


def test_what_does_not_fit_in_memory_is_a_user_error(monkeypatch):
    leaves(monkeypatch, 3 * 10**9)
    memory.check_fits("Latents", 3 * 10**9, "buy more")
    sentence = refusal_of(memory.check_fits, "Latents", 4 * 10**9, "buy more")
    assert sentence == "Latents would take 4 GB of memory and 3 GB are available; buy more."
    leaves(monkeypatch, None)
    memory.check_fits("Latents", 10**18, "buy more")


def test_images_of_a_file(tmp_path, monkeypatch):
    """100 images of 16x16 take 25.6 kB; brought to 32x32 they take 4 times that, twice."""
    path = tmp_path / "images.npz"
    images, labels = np.zeros((100, 16, 16, 1), np.uint8), np.arange(100) % 2
    images[..., 8:, :] = 255
    np.savez_compressed(path, images=images, labels=labels)

    def opened(size):
        return load(DataOptions(source="npz", path=str(path), image_size=size, num_classes=2))

    leaves(monkeypatch, 25_600)
    assert "images.npz would take 26." in refusal_of(opened, 16)
    leaves(monkeypatch, 2 * 102_400 - 1)
    sentence = refusal_of(opened, 32)
    assert (
        "100 images of" in sentence
        and "205 kB" in sentence
        and "config.data.source='folder'" in sentence
    )
    leaves(monkeypatch, 2 * 102_400)
    assert len(opened(32).train) == 80


def test_pictures_of_a_file(tmp_path, monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    one = np.frombuffer(file.getvalue(), np.uint8)
    offsets = np.arange(101) * len(one)
    np.savez(
        tmp_path / "a.npz", jpeg_bytes=np.tile(one, 100), offsets=offsets, labels=np.zeros(100, int)
    )
    data = DataOptions(source="npz", path=str(tmp_path / "a.npz"), image_size=128, channels=3)
    leaves(monkeypatch, 10**6)
    assert "100 images of" in refusal_of(load, data)


class Plain(Tokenizer):
    latent_shape = (2, 2, 8)

    def encode(self, params, images):
        return images


def test_latents_that_are_encoded_once(monkeypatch):
    """10 latents of 2x2x8 float32 take 1280 bytes; nothing is encoded before they are counted."""
    calls = []

    def map_over(function, params, images):
        calls.append(len(images))
        return {"latents": np.zeros((len(images), 2, 2, 8), np.float32)}

    images, labels = np.zeros((10, 4, 4, 3), np.uint8), np.zeros(10, np.int32)
    parts = [
        Source({"images": images[r], "labels": labels[r]}) for r in (slice(0, 8), slice(8, 10))
    ]
    leaves(monkeypatch, 1279)
    sentence = refusal_of(encoded_split, Plain(), Split(*parts), {}, map_over)
    assert "10 images, encoded once, would take 1.28 kB" in sentence and calls == []
    assert "sphere_jax.prepare latents" in sentence and "encode='every_step'" in sentence
    leaves(monkeypatch, 1280)
    assert len(encoded_split(Plain(), Split(*parts), {}, map_over).train) == 8
    assert calls == [8, 2]
