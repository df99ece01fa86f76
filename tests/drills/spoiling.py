"""Files spoilt at random, by a seed: bits flipped, cut, doubled, numbers made extreme, formats
rebuilt around content that their checksums would have refused."""

import io
import json
import struct
import zipfile
import zlib

import numpy as np

NUMBERS = (0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
EDGE = 160  # bytes at both ends, where formats have their headers: spoilt as often as the rest


def spoilt(content: bytes, rng: np.random.Generator, times: int = 3) -> bytes:
    """One to `times` changes."""
    for _ in range(rng.integers(1, times + 1)):
        content = CHANGES[rng.integers(len(CHANGES))](content, rng)
    return content


def place(content: bytes, rng) -> int:
    size = max(len(content), 1)
    if rng.random() < 0.5:
        return int(rng.integers(size))
    near = int(rng.integers(min(EDGE, size)))
    return near if rng.random() < 0.6 else size - 1 - near


def span(content: bytes, rng) -> tuple[int, int]:
    start = place(content, rng)
    return start, start + int(2 ** rng.uniform(0, np.log2(max(len(content), 2))))


def flipped(content: bytes, rng) -> bytes:
    found = bytearray(content)
    for _ in range(rng.integers(1, 9) if found else 0):
        found[place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(found)


def cut(content: bytes, rng) -> bytes:
    at = place(content, rng)
    return content[:at] if rng.random() < 0.7 else content[at:]


def without_span(content: bytes, rng) -> bytes:
    start, stop = span(content, rng)
    return content[:start] + content[stop:]


def doubled(content: bytes, rng) -> bytes:
    start, stop = span(content, rng)
    return content[:stop] + content[start:]


def noise_in(content: bytes, rng) -> bytes:
    start, stop = span(content, rng)
    noise = rng.bytes(min(stop - start, 64))
    return content[:start] + noise + content[start + rng.integers(2) * len(noise) :]


def zeroed(content: bytes, rng) -> bytes:
    start, stop = span(content, rng)
    return content[:start] + bytes(len(content[start:stop])) + content[stop:]


def extreme(content: bytes, rng) -> bytes:
    """A binary number of 1, 2, 4 or 8 bytes at some place."""
    at, size = place(content, rng), int(rng.choice([1, 2, 4, 8]))
    number = NUMBERS[rng.integers(len(NUMBERS))] % 2 ** (8 * size)
    order = "little" if rng.random() < 0.6 else "big"
    return content[:at] + number.to_bytes(size, order) + content[at + size :]


CHANGES = (flipped, cut, without_span, doubled, noise_in, zeroed, extreme)

TEXTS = (
    "",
    "a",
    "x" * 3000,
    "\x00",
    "é\u2028",
    "../../x",
    "/",
    "NaN",
    "-1",
    "1e999",
    "[",
    "{",
    "'",
)
VALUES = (
    None, True, 0, -1, 1, 3, 2**31, 2**63, 10**400, 0.5, -0.0, float("nan"), float("inf"),
    [], [0], [[]], {}, {"a": 1}, *TEXTS,
)  # fmt: skip


def spoilt_tree(tree, rng, times: int = 2):
    """A JSON value with some of its values replaced, left out, or put elsewhere."""
    for _ in range(rng.integers(1, times + 1)):
        tree = _changed(tree, rng)
    return tree


def _changed(tree, rng):
    """Goes down at random, and changes what is there."""
    if isinstance(tree, (dict, list)) and len(tree) and rng.random() < 0.85:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = keys[rng.integers(len(keys))]
        copy = dict(tree) if isinstance(tree, dict) else list(tree)
        how = rng.random()
        if how < 0.15:
            copy.pop(key)
        elif how < 0.25 and isinstance(copy, dict):
            copy[str(TEXTS[rng.integers(len(TEXTS))])] = copy.pop(key)
        else:
            copy[key] = _changed(copy[key], rng)
        return copy
    if isinstance(tree, str) and tree and rng.random() < 0.3:
        return spoilt(tree.encode(), rng, 1).decode(errors="replace")
    return VALUES[rng.integers(len(VALUES))]


def spoilt_json(content: bytes, rng) -> bytes:
    if rng.random() < 0.4:
        return spoilt(content, rng)
    return json.dumps(spoilt_tree(json.loads(content), rng)).encode()


def spoilt_zip(content: bytes, rng) -> bytes:
    """Members changed, renamed, doubled, left out or compressed, with right checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    target = io.BytesIO()
    chosen = int(rng.integers(len(members)))
    kind = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(target, "w", kind) as archive:
        for number, (name, inside) in enumerate(members):
            if number == chosen:
                how = rng.random()
                if how < 0.1:
                    continue
                if how < 0.2:
                    name = TEXTS[rng.integers(len(TEXTS))][:200] + name[-4:]
                else:
                    inside = spoilt(inside, rng)
            archive.writestr(name.replace("\0", "") or "x", inside)
    return target.getvalue()


def png_with_sums(content: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold now."""
    found, at = [content[:8]], 8
    while at + 12 <= len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        body = content[at + 4 : at + 8 + min(size, len(content))]
        found += [content[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + size
    return b"".join(found)


def safetensors_with_header(content: bytes, rng) -> bytes:
    """Its header, which is JSON, changed and its length right."""
    (size,) = struct.unpack("<Q", content[:8])
    header = spoilt_json(content[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + content[8 + size :]
