"""The order of the examples of an epoch: any part of it, without the rest in memory.

It is TensorFlow's ``RandomIndexShuffle``, a cipher that takes a position to an example. Its public
form, ``tf.random.experimental.index_shuffle``, would not do (TensorFlow 2.21): it has too few
rounds, and neither of them is right for all sizes and keys; see below and test_shuffle.py.

The state of an `IndexedInput` counts on the order. Another one needs another version of that state.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# With 4, the default, positions near to each other stay so in a large source; with 12, nothing of
# the kind is seen any more.
_ROUNDS = 16


def shuffled(positions: Any, size: int, seed: int, epoch: Any) -> Any:
    """Returns the examples at some positions of an epoch. In a graph or eagerly.

    Args:
      positions: A vector, int64; it may be empty.
      size: How many positions and examples there are.
      seed: Decides on the order, with `epoch`.
      epoch: The number of the epoch, int64.
    """
    most = _shufflable(size)
    # The op refuses an empty vector, so it gets a position more.
    known = tf.concat([tf.minimum(positions, most - 1), [0]], axis=0)
    examples = tf.raw_ops.RandomIndexShuffle(
        index=known,
        seed=_key(seed, epoch),
        max_index=tf.constant(most - 1, tf.int64),
        rounds=_ROUNDS,
    )[:-1]
    if most == size:
        return examples
    # The last one stays the last; with each epoch that is another one.
    return (tf.where(positions < most, examples, positions) + epoch) % size


def _key(seed: int, epoch: Any) -> Any:
    """Returns the three words of the key: hashed, as of each only some low bits may be used."""
    words = [f"{seed}/{word}/" for word in range(3)]
    return tf.strings.to_hash_bucket_fast(words + tf.strings.as_string(epoch), 2**32)


def _shufflable(size: int) -> int:
    """Returns how many of `size` positions the op can shuffle: all, or all but one.

    Where ``size - 1`` is a power of four, from 2**16 on, its block is too small by a bit, and two
    positions get the same example.
    """
    bits = (size - 1).bit_length() - 1
    return size - 1 if size - 1 == 2**bits and bits >= 16 and bits % 2 == 0 else size
