"""Lets a `tf.data` iterator begin again, while the `tf.function`s that use it stay as they are.

These hold the iterator's resource; a new iterator would be another one.

Private TensorFlow API used here: ``OwnedIterator._iterator_resource``;
tests/unit/state/test_rewind.py would notice a change.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def rewind(iterator: Any, dataset: tf.data.Dataset) -> None:
    """Makes ``iterator``, which is ``iter(dataset)``, begin at the beginning of ``dataset``.

    Values that the dataset reads from variables are read anew. What was prefetched is lost.
    """
    tf.raw_ops.MakeIterator(
        dataset=tf.data.experimental.to_variant(dataset), iterator=iterator._iterator_resource
    )
