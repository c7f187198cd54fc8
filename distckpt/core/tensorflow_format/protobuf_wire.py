"""Protocol buffer messages without generated code and without TensorFlow.

Each message class is built at import in its own descriptor pool. TensorFlow's definitions of the
same messages, in the default pool, are not affected, whichever is imported first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

BYTES = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
DOUBLE = descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE
FIXED32 = descriptor_pb2.FieldDescriptorProto.TYPE_FIXED32
INT32 = descriptor_pb2.FieldDescriptorProto.TYPE_INT32
INT64 = descriptor_pb2.FieldDescriptorProto.TYPE_INT64
STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
BOOL = descriptor_pb2.FieldDescriptorProto.TYPE_BOOL


class Field(NamedTuple):
    """A field of a message.

    An enumeration may be declared INT32, and a message BYTES (and parsed when needed): the encoding
    is the same.

    Attributes:
      name: Its name, which matters in the text format only.
      number: Its number.
      type: One of the types above.
      repeated: Whether it is a list.
      presence: Whether "absent" differs from "zero" or "empty".
    """

    name: str
    number: int
    type: int
    repeated: bool = False
    presence: bool = False


def message_class(name: str, *fields: Field) -> Any:
    """Returns the class of a proto3 message with `fields`. They must be in order of number."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", package="distckpt", syntax="proto3"
    )
    message = file.message_type.add(name=name)
    for field in fields:
        added = message.field.add(name=field.name, number=field.number, type=field.type)
        added.label = added.LABEL_REPEATED if field.repeated else added.LABEL_OPTIONAL
        if field.presence:
            added.proto3_optional = True
            added.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"distckpt.{name}"))
