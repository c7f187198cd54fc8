"""Encodes the description of the objects of a checkpoint, message ``TrackableObjectGraph``.

The objects of the protocol buffer library would take three times as long for many variables.

Source: ``trackable_object_graph.proto`` in ``tensorflow/core/protobuf``.
"""

from __future__ import annotations

from collections.abc import Iterable

from distckpt.core.tensorflow_format.leveldb_table import encode_varint

# Field numbers, with the type "length and bytes", except for the number of a child.
_NODE = _CHILDREN = _NAME = b"\x0a"
_ATTRIBUTES = _CHILD_NAME = _FULL_NAME = b"\x12"
_KEY = b"\x1a"
_CHILD_NUMBER = b"\x08"
_HAS_VALUES, _HAS_NO_VALUES = b"\x2a\x02\x08\x01", b"\x2a\x00"


def encode_node(children: Iterable[tuple[str, int]], attributes: bytes, has_values: bool) -> bytes:
    """Returns an object, as a part of the encoded graph.

    Args:
      children: The names and numbers of its children.
      attributes: Its tensors: what `encode_attribute` returns, one after the other.
      has_values: Whether it has tensors, or a descendant has.
    """
    parts = [_bytes(_CHILDREN, _child(name, number)) for name, number in children]
    parts += (attributes, _HAS_VALUES if has_values else _HAS_NO_VALUES)
    return _bytes(_NODE, b"".join(parts))


def encode_attribute(name: str, full_name: str, key: str) -> bytes:
    """Returns a tensor of an object, as a part of the encoded object.

    Args:
      name: Its name within the object.
      full_name: The name of the variable for old checkpoints, or "".
      key: The checkpoint key.
    """
    content = _text(_NAME, name) + _text(_FULL_NAME, full_name) + _text(_KEY, key)
    return _bytes(_ATTRIBUTES, content)


def _child(name: str, number: int) -> bytes:
    head = _CHILD_NUMBER + encode_varint(number) if number else b""
    return head + _text(_CHILD_NAME, name)


def _text(tag: bytes, text: str) -> bytes:
    return _bytes(tag, text.encode()) if text else b""  # as proto3 leaves out what is empty


def _bytes(tag: bytes, content: bytes) -> bytes:
    return tag + encode_varint(len(content)) + content
