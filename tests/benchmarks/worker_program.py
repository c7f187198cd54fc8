"""What a worker process of the benchmark runs: it obeys the calls that `workers.Workers` sends."""

from __future__ import annotations

import json
import os
import sys
import traceback
from multiprocessing.connection import Client

import tensorflow as tf
from saves import Saves


def main(address: str) -> None:
    """Creates the strategy, then answers calls until the main program hangs up."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    config = json.loads(os.environ["TF_CONFIG"])
    index = config["task"]["index"]
    saves = Saves(strategy, index, len(config["cluster"]["worker"]))
    link = Client(address, "AF_UNIX")
    link.send(index)
    while True:
        try:
            name, arguments = link.recv()
        except EOFError:
            os._exit(0)  # the strategy's own end would wait for the others
        try:
            answer = (True, getattr(saves, name)(**arguments))
        except Exception:
            answer = (False, traceback.format_exc())
        link.send(answer)


if __name__ == "__main__":
    main(sys.argv[1])
