"""`tf.train.Example`, the record that most image data sets come in, without TensorFlow."""

from collections.abc import Mapping

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

# example.proto and feature.proto of TensorFlow. Their `map<string, Feature> feature` is the same on
# the wire as these entries, which keep their order.
SCHEMA = """
name: "example.proto" package: "sphere_jax" syntax: "proto3"
message_type { name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature"
  field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: "BytesList" }
  field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: "Int64List" } }
message_type { name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type: TYPE_MESSAGE type_name: "Feature" } }
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Entry" } }
message_type { name: "Example"
  field { name: "features" number: 1 type: TYPE_MESSAGE type_name: "Features" } }
"""
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(SCHEMA, descriptor_pb2.FileDescriptorProto()))
Example = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("sphere_jax.Example"))

Feature = list[bytes] | list[int]


def parse_example(record: bytes) -> dict[str, Feature]:
    """Its features of bytes and of integers by name; those of floats are left out.

    Raises ValueError for what is no Example.
    """
    try:
        entries = Example.FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(f"it is no tf.train.Example ({error})") from error
    found = {e.key: [*e.value.bytes_list.value, *e.value.int64_list.value] for e in entries}
    return {name: values for name, values in found.items() if values}


def write_example(features: Mapping[str, bytes | int]) -> bytes:
    """An Example with one value a feature."""
    example = Example()
    for name, value in features.items():
        feature = example.features.feature.add(key=name).value
        values = feature.bytes_list if isinstance(value, bytes) else feature.int64_list
        values.value.append(value)
    return example.SerializeToString()
