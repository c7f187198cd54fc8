"""Restarts a `tf.data` iterator without retracing the `tf.function`s that use it.

These functions hold the iterator's resource; a new iterator would have another resource.

Private TensorFlow API used here: ``OwnedIterator._iterator_resource``;
tests/unit/state/test_rewind.py would notice a change.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def rewind(iterator: Any, dataset: tf.data.Dataset) -> None:
    """Makes ``iterator``, which is ``iter(dataset)``, start at the beginning of ``dataset``.

    Values that the dataset reads from variables are read again. Prefetched elements are lost.
    """
    tf.raw_ops.MakeIterator(
        dataset=tf.data.experimental.to_variant(dataset), iterator=iterator._iterator_resource
    )
