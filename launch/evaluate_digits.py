"""Evaluates each checkpoint of launch/digits.py as it comes. Only reads.

    python launch/evaluate_digits.py --directory /tmp/digits --timeout 60

It may be started, stopped and started again at any time, beside the training or after it. A lease
keeps the checkpoint that it reads from being deleted; with --no-lease it writes nothing at all.
"""

from __future__ import annotations

import argparse

import numpy as np
import tensorflow as tf
from digits import load_data, make_model

import distckpt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", required=True, help="of the training's checkpoints")
    parser.add_argument("--timeout", type=float, help="seconds without a new one, to end after")
    parser.add_argument("--no-lease", action="store_true", help="write nothing into the directory")
    arguments = parser.parse_args()

    _, (images, labels) = load_data()
    model = make_model()
    checkpoint = tf.train.Checkpoint(model=model)
    new_ones = distckpt.checkpoints_iterator(
        arguments.directory,
        timeout=arguments.timeout,
        lease_seconds=None if arguments.no_lease else 600.0,
    )
    for path in new_ones:
        try:
            checkpoint.restore(path).expect_partial()
        except (tf.errors.OpError, ValueError) as error:  # pruned while it was being read
            print(f"{path} has gone: {type(error).__name__}", flush=True)
            continue
        correct = np.argmax(model(images), axis=-1) == labels
        print(f"{path}: accuracy {np.mean(correct):.4f} on {len(labels)} digits", flush=True)


if __name__ == "__main__":
    main()
