"""How the versions of TensorFlow differ, as far as tests notice.

`test_tf_differences` checks each of these statements with the version that is installed.
"""

from __future__ import annotations

import re
import sys

import tensorflow as tf

VERSION = tuple(int(number) for number in re.findall(r"\d+", tf.version.VERSION)[:2])

# Whether tf.train.CheckpointManager has the argument last_checkpoint_step.
TAKES_LAST_STEP = VERSION >= (2, 20)

# Whether it takes the step 0 for 0. TensorFlow 2.20 takes it for None.
TAKES_LAST_STEP_0 = VERSION >= (2, 21)

# Whether the error says why the coordination service cannot be reached. The test of this is in
# tests/contract/test_tensorflow_service.py, because it takes a cluster whose chief dies.
TELLS_WHY_UNREACHABLE = VERSION >= (2, 20)

# Whether tf-keras makes models after keras.utils.set_random_seed. Older ones pass a float to
# random.randint, which Python 3.12 refuses.
KERAS_2_TAKES_SEEDS = VERSION >= (2, 19) or sys.version_info < (3, 12)

# Data types that came with a version.
_TYPES = {
    (2, 19): {"float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"},
    (2, 20): {"int2", "uint2"},
    (2, 21): {"float4_e2m1fn"},
}

# Data types that only later versions have.
MISSING_TYPES = frozenset(
    name for version, names in _TYPES.items() if version > VERSION for name in names
)
