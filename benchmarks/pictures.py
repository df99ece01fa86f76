"""PNG files without a package: grids of images and curves."""

import struct
import zlib
from pathlib import Path

import numpy as np

COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189))


def write_png(path: Path, image: np.ndarray) -> None:
    """uint8 (H, W, 3)."""
    height, width, _ = image.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """uint8 (N, h, w, 3) row by row on white; N is a multiple of `columns`."""
    padded = np.pad(images, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    n, h, w, _ = padded.shape
    table = padded.reshape(n // columns, columns, h, w, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(table.reshape(n // columns * h, columns * w, 3))


def curves(
    lines: dict[str, tuple[np.ndarray, np.ndarray]], width: int = 640, height: int = 400
) -> np.ndarray:
    """Polylines, {name: (x, y)}, on white, uint8 (height, width, 3); their colours are `COLOURS` in
    order. There is no text: the numbers are in the JSON beside it."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[[0, -1]] = canvas[:, [0, -1]] = 0
    xs = np.concatenate([x for x, _ in lines.values()])
    ys = np.concatenate([y for _, y in lines.values()])
    if not len(xs):
        return canvas
    low, high = np.percentile(ys, [0, 99])
    for (x, y), colour in zip(lines.values(), COLOURS, strict=False):
        across = (x - xs.min()) / max(np.ptp(xs), 1e-9) * (width - 5) + 2
        up = np.clip((y - low) / max(high - low, 1e-9), 0, 1) * (height - 5) + 2
        columns = np.arange(int(across[0]), int(across[-1]) + 1)
        rows = height - 1 - np.interp(columns, across, up).round().astype(int)
        for thick in (-1, 0, 1):
            canvas[np.clip(rows + thick, 0, height - 1), columns] = colour
    return canvas
