"""Evaluates each checkpoint of launch/digits.py as it comes. Only reads; needs no distckpt.

    python launch/evaluate_digits.py --directory /tmp/digits --timeout 60

It may be started, stopped and started again at any time, beside the training or after it. What
distckpt writes is a plain TensorFlow checkpoint, so TensorFlow's own `checkpoints_iterator` does.
"""

from __future__ import annotations

import argparse

import numpy as np
import tensorflow as tf
from digits import load_data, make_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", required=True, help="of the training's checkpoints")
    parser.add_argument("--timeout", type=float, help="seconds without a new one, to end after")
    arguments = parser.parse_args()

    _, (images, labels) = load_data()
    model = make_model()
    checkpoint = tf.train.Checkpoint(model=model)
    for path in tf.train.checkpoints_iterator(arguments.directory, timeout=arguments.timeout):
        try:
            checkpoint.restore(path).expect_partial()
        except (tf.errors.OpError, ValueError) as error:  # pruned while it was being read
            print(f"{path} has gone: {type(error).__name__}", flush=True)
            continue
        correct = np.argmax(model(images), axis=-1) == labels
        print(f"{path}: accuracy {np.mean(correct):.4f} on {len(labels)} digits", flush=True)


if __name__ == "__main__":
    main()
