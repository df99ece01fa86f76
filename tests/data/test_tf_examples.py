"""tf.train.Example against protobuf's own reader and writer, and against damage."""

import pytest
from google.protobuf import descriptor_pb2 as pb2
from google.protobuf import descriptor_pool, message_factory

from sphere_jax.data.record_pictures import image_and_label
from sphere_jax.data.tf_examples import parse_example, write_example

FEATURES = {"image": b"\x89PNG\r\n" + bytes(300), "label": 7, "far": -5, "\u00e9": 2**62}


@pytest.fixture(scope="module")
def example():
    """The message class, declared here as example.proto and feature.proto of TensorFlow are."""
    file = pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    field, one, many = pb2.FieldDescriptorProto, 1, 3

    def message(name, *fields, parent=None):
        made = (parent.nested_type if parent else file.message_type).add(name=name)
        for number, (label, field_name, kind) in enumerate(fields, 1):
            named = {"type": kind} if isinstance(kind, int) else {"type_name": kind, "type": 11}
            made.field.add(name=field_name, number=number, label=label, **named)
        return made

    message("BytesList", (many, "value", field.TYPE_BYTES))
    message("FloatList", (many, "value", field.TYPE_FLOAT))
    message("Int64List", (many, "value", field.TYPE_INT64))
    lists = (("bytes_list", ".t.BytesList"), ("float_list", ".t.FloatList"))
    kinds = message("Feature", *((one, *n) for n in (*lists, ("int64_list", ".t.Int64List"))))
    kinds.oneof_decl.add(name="kind")
    for entry in kinds.field:
        entry.oneof_index = 0
    features = message("Features", (many, "feature", ".t.Features.FeatureEntry"))
    entry = message(
        "FeatureEntry",
        (one, "key", field.TYPE_STRING),
        (one, "value", ".t.Feature"),
        parent=features,
    )
    entry.options.map_entry = True
    message("Example", (one, "features", ".t.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def test_protobuf_output_is_read(example):
    made = example()
    made.features.feature["image"].bytes_list.value.append(FEATURES["image"])
    made.features.feature["box"].float_list.value.extend([0.5, 1.0])
    made.features.feature["labels"].int64_list.value.extend([3, -1, 300, 2**40])
    made.features.feature["empty"].bytes_list.SetInParent()
    expected = {"image": [FEATURES["image"]], "labels": [3, -1, 300, 2**40]}
    assert parse_example(made.SerializeToString()) == expected
    assert parse_example(example().SerializeToString()) == {}


def test_protobuf_reads_what_is_written(example):
    made = example.FromString(write_example(FEATURES))
    found = {
        name: (feature.bytes_list.value or feature.int64_list.value)[0]
        for name, feature in made.features.feature.items()
    }
    assert found == FEATURES


def test_written_bytes_stay():
    """As they were before protobuf wrote them: `prepare images` may continue older folders."""
    written = write_example({"image": b"abc", "label": -1})
    head = b"\x0a\x2b\x0a\x10\x0a\x05image\x12\x07\x0a\x05\x0a\x03abc"
    label = b"\x0a\x17\x0a\x05label\x12\x0e\x1a\x0c\x0a\x0a" + b"\xff" * 9 + b"\x01"
    assert written == head + label


def test_round_trip():
    assert parse_example(write_example(FEATURES)) == {k: [v] for k, v in FEATURES.items()}


def varint(value: int) -> bytes:
    return bytes([*((value >> shift & 127) | 128 for shift in range(0, 63, 7)), value >> 63])


def sized(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def entry(key: bytes, feature: bytes) -> bytes:
    return sized(1, sized(1, key + feature))


def hostile() -> list[bytes]:
    """Numbers where bytes belong: fields of another type, which a reader of protobuf leaves out."""
    huge = varint(2**40)
    name = sized(1, b"image")
    return [
        entry(b"\x08" + huge, sized(2, b"")),  # a key
        entry(name, sized(2, sized(1, b"\x08" + huge))),  # a value of a list of bytes
        entry(name, sized(2, b"\x08" + huge)),  # the list itself
        entry(name, b"\x10" + huge),  # a feature
        b"\x08" + huge,  # all of them
    ]


def test_numbers_are_read_modulo_two_to_the_64():
    for content, value in ((varint(2**64 - 2), -2), (b"\xfe" + b"\xff" * 8 + b"\x7f", -2)):
        for number in (b"\x08" + content, sized(1, content)):  # alone and packed
            record = entry(sized(1, b"label"), sized(2, sized(3, number)))
            assert parse_example(record) == {"label": [value]}


def test_damage_raises_a_value_error_or_is_reported():
    whole = write_example({"image": b"abc", "label": 300})
    for cut in range(1, len(whole)):
        with pytest.raises(ValueError, match="no tf.train.Example"):
            parse_example(whole[:cut])
    for at in range(len(whole)):
        for bit in (1, 2, 8, 32, 128):
            damaged = bytearray(whole)
            damaged[at] ^= bit
            try:
                assert isinstance(parse_example(bytes(damaged)), dict)
            except ValueError as error:
                assert "no tf.train.Example" in str(error)
    for other in hostile():
        assert parse_example(other) == {}
        with pytest.raises(ValueError, match="it has nothing, not an encoded image"):
            image_and_label(other)
    for other in (b"\xff" * 20, b"\x89PNG\r\n\x1a\n" + bytes(20)):
        with pytest.raises(ValueError, match="no tf.train.Example"):
            parse_example(other)
