"""A worker that trains by `fit`; each line tells a batch, and the last ones the result.

With tf-keras where TF_USE_LEGACY_KERAS=1 is set, else with Keras 3, under the example's strategy.

Usage: keras_fit.py DIRECTORY [key=value …]
  epochs=3  at=EPOCH.BATCH  signal=SIGKILL  of=WORKER  preemption=1  async=1
  monitor=0.9:0.8:…  plain=1
  recipe=0.9:0.8:…: with the callbacks of docs/keras.md, "The best checkpoint"
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

import distckpt
from distckpt.inspection import inventory
from distckpt.storage.local import LocalStorage

sys.path.append(str(Path(__file__).parents[2] / "launch"))
from keras_digits import Strategy

DIRECTORY, GIVEN = sys.argv[1], dict(text.split("=") for text in sys.argv[2:])
LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
PLAIN = LEGACY or "plain" in GIVEN
STRATEGY = (tf.distribute.MultiWorkerMirroredStrategy if PLAIN else Strategy)()
WORKER = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
WORKERS = STRATEGY.num_replicas_in_sync
STEPS = 8
keras = tf.keras


class Watch(keras.callbacks.Callback):
    """Tells each batch, and gets a signal before one of them."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if GIVEN.get("at") == f"{self.epoch}.{batch}" and GIVEN.get("of", str(WORKER)) == str(
            WORKER
        ):
            os.kill(os.getpid(), getattr(signal, GIVEN["signal"]))

    def on_train_batch_end(self, batch, logs=None):
        print(f"BATCH {self.epoch}.{batch}", flush=True)


class Score(keras.callbacks.Callback):
    """Puts a metric into the logs, which is not the same on every worker."""

    def on_epoch_end(self, epoch, logs=None):
        for name, metric in (("monitor", "score"), ("recipe", "val_loss")):
            if name in GIVEN:
                logs[metric] = float(GIVEN[name].split(":")[epoch]) * (1 if WORKER == 0 else -1)


def dataset():
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS * 2 * WORKERS, 4)).astype("float32")
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1] * 2 - x[:, 1:2]))
    return data.batch(2 * WORKERS).with_options(options)


def model():
    keras.utils.set_random_seed(1)
    with STRATEGY.scope():
        made = keras.Sequential(
            [
                keras.layers.Dense(5, activation="tanh"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(1),
            ]
        )
        made.build((None, 4))
        made.compile(keras.optimizers.Adam(0.05), "mse", metrics=["mae"])
    return made


def numbers(variables):
    return [tf.convert_to_tensor(v).numpy() for v in variables]


def digest(trained):
    exact = numbers([*trained.trainable_weights, *trained.optimizer.variables])
    return hashlib.sha256(b"".join(array.tobytes() for array in exact)).hexdigest()


def averages(trained):
    """The moving averages, which every worker has its own of, and a checkpoint holds the mean."""
    return [float(n) for array in numbers(trained.non_trainable_weights) for n in array.flat]


def recipe():
    """The callbacks of the page, but for the directory, and saved more often and all kept."""
    page = Path(__file__).parents[2] / "docs" / "keras.md"
    (code,) = re.findall(r"^callbacks = \[\n.*?^\]\n", page.read_text(), re.M | re.S)
    changes = {"/shared/run-1": DIRECTORY, "=500": "=3", "max_to_keep=1": "max_to_keep=None"}
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    names = {"distckpt": distckpt}
    exec(code, names)
    return names["callbacks"]


def train_by_recipe(trained):
    epochs = len(GIVEN["recipe"].split(":"))
    callbacks = [Score(), Watch(), *recipe()]
    trained.fit(dataset(), epochs=epochs, validation_data=dataset(), callbacks=callbacks, verbose=0)
    for item in inventory.take(LocalStorage(), f"{DIRECTORY}/best", time.time()).items:
        print("BEST", item.name, item.step, item.manifest.metrics["val_loss"], flush=True)


trained = model()
if "recipe" in GIVEN:
    train_by_recipe(trained)
    sys.exit()
monitor = {"monitor": "score", "mode": "min", "save_best_only": True} if "monitor" in GIVEN else {}
with STRATEGY.scope() if monitor else contextlib.nullcontext():  # programs make it in either
    callback = distckpt.keras.CheckpointCallback(
        DIRECTORY,
        save_freq="epoch" if monitor else 3,
        preemption="preemption" in GIVEN,
        options=distckpt.ManagerOptions(enable_async="async" in GIVEN),
        **monitor,
    )
callbacks = [Score(), Watch(), callback]
trained.fit(dataset(), epochs=int(GIVEN.get("epochs", 3)), verbose=0, callbacks=callbacks)
print("SAVED", *(os.path.basename(p) for p in callback.manager.checkpoints))
print("AVERAGES", *averages(trained))
print("DIGEST", digest(trained), flush=True)
