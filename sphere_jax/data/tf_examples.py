"""`tf.train.Example`, the record that most image data sets come in, without TensorFlow.

    Example  { Features features = 1; }
    Features { map<string, Feature> feature = 1; }    entries { string key = 1; Feature value = 2; }
    Feature  { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; }
    *List    { repeated value = 1; }                  numbers are usually packed

The wire format of protocol buffers: every field is a varint `number << 3 | type`, then a varint
(type 0), 8 bytes (1), a varint of a length and as many bytes (2), or 4 bytes (5).
"""

from collections.abc import Iterator, Mapping

Feature = list[bytes] | list[int]


def parse_example(record: bytes) -> dict[str, Feature]:
    """Its features of bytes and of integers by name; those of floats are left out.

    Raises ValueError for what is no Example.
    """
    found = {}
    try:
        for features in _messages(record, 1):
            for entry in _messages(features, 1):
                fields = dict(_fields(entry))
                found[str(fields[1], "utf-8")] = _feature(fields.get(2, b""))
    except (IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is no tf.train.Example ({error})") from error
    return {name: values for name, values in found.items() if values}


def write_example(features: Mapping[str, bytes | int]) -> bytes:
    """An Example with one value a feature."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = _sized(1, _sized(1, value))
        else:
            feature = _sized(3, _sized(1, _varint(value % 2**64)))
        entries += _sized(1, _sized(1, name.encode()) + _sized(2, feature))
    return _sized(1, entries)


def _feature(message) -> Feature:
    values: list = []
    for kind, part in _fields(message):
        for _, value in _fields(part) if kind in (1, 3) else ():
            if kind == 1:
                values.append(memoryview(value).tobytes())
            elif isinstance(value, int):
                values.append(_signed(value))
            else:  # packed
                at = 0
                while at < len(value):
                    number, at = _read_varint(value, at)
                    values.append(_signed(number))
    return values


def _messages(message, number: int) -> Iterator[memoryview]:
    return (value for found, value in _fields(message) if found == number)


def _fields(message) -> Iterator[tuple[int, memoryview | int]]:
    """`(number, value)` of every field. Raises IndexError for a message that is cut off."""
    view, at = memoryview(message), 0
    while at < len(view):
        key, at = _read_varint(view, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise IndexError("a field of number 0")
        if kind == 0:
            value, at = _read_varint(view, at)
        elif kind in (1, 2, 5):
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, at = _read_varint(view, at)
            if at + length > len(view):
                raise IndexError("it is cut off")
            value, at = view[at : at + length], at + length
        else:
            raise IndexError(f"a field of type {kind}")
        yield number, value


def _read_varint(view, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the value and where the next begins."""
    value = shift = 0
    while True:
        byte = view[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value & (2**64 - 1), at
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than 64 bits")


def _varint(value: int) -> bytes:
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    return bytes([*content, value])


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _sized(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content
