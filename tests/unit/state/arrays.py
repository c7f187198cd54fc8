"""Arrays and variables of every type."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from .conftest import bits, program

DTYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "string"),
    *("half", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("float8_e5m2", "float8_e4m3fn"),
]

SHAPES = [(), (0,), (3, 0, 2), (1,), (5,), (2, 3, 4)]


def of_variables(*variables, **tracked):
    checkpoint = tf.train.Checkpoint(**(tracked or {"all": list(variables)}))
    return program(checkpoint, lambda: [bits(v) for v in variables])


def array(dtype, shape, seed):
    """Makes values of random bytes, and text of many lengths: empty, and longer than a buffer."""
    random = np.random.default_rng([seed, *shape])
    count = int(np.prod(shape))
    if dtype == "string":
        lengths = random.choice([0, 1, 127, 128, 5000], count)
        return np.array([random.bytes(n) for n in lengths], object).reshape(shape)
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    kind = tf.as_dtype(dtype)
    return np.frombuffer(random.bytes(count * kind.size), kind.as_numpy_dtype).reshape(shape)
