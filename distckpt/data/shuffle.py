"""The order of an epoch's examples, of which any part is computed without storing the rest.

It uses TensorFlow's ``RandomIndexShuffle``, a cipher that maps a position to an example. Its public
form, ``tf.random.experimental.index_shuffle``, has too few rounds (TensorFlow 2.21), and both are
wrong for some sizes and keys; see below and test_shuffle.py.

The state of an `IndexedInput` depends on this order. A new order needs a new version of the state.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# With 4 rounds, the default, neighbouring positions in a large source get neighbouring examples;
# from 12 rounds on, this no longer shows.
_ROUNDS = 16


def shuffled(positions: Any, size: int, seed: int, epoch: Any) -> Any:
    """Returns the examples at some positions of an epoch. In a graph or eagerly.

    Args:
      positions: A vector, int64; it may be empty.
      size: The number of positions and examples.
      seed: With `epoch`, determines the order.
      epoch: The number of the epoch, int64.
    """
    most = _shufflable(size)
    # The op refuses an empty vector, so it gets an additional position.
    known = tf.concat([tf.minimum(positions, most - 1), [0]], axis=0)
    examples = tf.raw_ops.RandomIndexShuffle(
        index=known,
        seed=_key(seed, epoch),
        max_index=tf.constant(most - 1, tf.int64),
        rounds=_ROUNDS,
    )[:-1]
    if most == size:
        return examples
    # The last position is not shuffled; adding the epoch puts a different example there each time.
    return (tf.where(positions < most, examples, positions) + epoch) % size


def _key(seed: int, epoch: Any) -> Any:
    """Returns the three words of the key, hashed because the op may use only some low bits."""
    words = [f"{seed}/{word}/" for word in range(3)]
    return tf.strings.to_hash_bucket_fast(words + tf.strings.as_string(epoch), 2**32)


def _shufflable(size: int) -> int:
    """Returns how many of `size` positions the op can shuffle: all, or all but one.

    If ``size - 1`` is a power of four, from 2**16 on, the op's block is one bit too small, and two
    positions get the same example.
    """
    bits = (size - 1).bit_length() - 1
    return size - 1 if size - 1 == 2**bits and bits >= 16 and bits % 2 == 0 else size
