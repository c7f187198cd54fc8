"""Bundles that TensorFlow writes."""

from __future__ import annotations

import tensorflow as tf


def save(prefix, names, tensors, specs=None):
    """Writes a bundle; returns its index."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=specs or [""] * len(names),
        tensors=tensors,
    )
    return named(prefix, ".index").read_bytes()


def named(prefix, suffix):
    """Returns the path of a file of a bundle."""
    return prefix.with_name(prefix.name + suffix)
