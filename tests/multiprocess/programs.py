"""What the workers of the test clusters do. Each function runs on all workers of a pool at once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

import distckpt
from distckpt.storage.local import LocalStorage


def _values(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_state(strategy: Any, seed: int = 0) -> tf.train.Checkpoint:
    """A state with mirrored variables of many kinds, an ON_READ variable, and plain ones."""
    with strategy.scope():
        big = tf.Variable(_values(seed, (1003, 64)))
        small = [tf.Variable(_values(seed + i + 1, (7, 3))) for i in range(5)]
        medium = [tf.Variable(_values(seed + i + 10, (301, 33))) for i in range(6)]
        half = tf.Variable(tf.cast(_values(seed + 30, (40, 50)), tf.float16))
        whole = tf.Variable(tf.range(10000, dtype=tf.int64))
        total = tf.Variable(
            0.0,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )
        step = tf.Variable(0, dtype=tf.int64)
    text = tf.Variable("plain")
    return tf.train.Checkpoint(
        big=big,
        small=small,
        medium=medium,
        half=half,
        whole=whole,
        total=total,
        step=step,
        text=text,
    )


def _accumulate(strategy: Any, checkpoint: tf.train.Checkpoint) -> None:
    """Each replica adds its own number to the ON_READ variable."""

    @tf.function
    def add() -> None:
        def replica() -> None:
            context = tf.distribute.get_replica_context()
            number = tf.cast(context.replica_id_in_sync_group, tf.float32) + 1.0
            checkpoint.total.assign_add(number)

        strategy.run(replica)

    add()


def digest(checkpoint: tf.train.Checkpoint) -> dict[str, str]:
    """Every value as a hash."""
    found = {}
    for name, value in [
        ("big", checkpoint.big),
        *[(f"small{i}", v) for i, v in enumerate(checkpoint.small)],
        *[(f"medium{i}", v) for i, v in enumerate(checkpoint.medium)],
        ("half", checkpoint.half),
        ("whole", checkpoint.whole),
        ("step", checkpoint.step),
        ("text", checkpoint.text),
    ]:
        array = tf.convert_to_tensor(value).numpy()
        data = array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes()
        found[name] = hashlib.sha256(data).hexdigest()[:16]
    return found


def save(
    strategy: Any,
    index: int,
    directory: str,
    seed: int = 0,
    saves: int = 1,
    max_to_keep: int | None = 3,
    number: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Makes a state, saves it `saves` times, tells what happened."""
    checkpoint = make_state(strategy, seed)
    manager = distckpt.CheckpointManager(
        checkpoint, directory, max_to_keep, options=distckpt.ManagerOptions(**options)
    )
    paths, seconds = [], []
    for _ in range(saves):
        checkpoint.step.assign_add(1)
        _accumulate(strategy, checkpoint)
        started = time.monotonic()
        paths.append(manager.save(checkpoint_number=number))
        seconds.append(time.monotonic() - started)
    return {
        "paths": paths,
        "seconds": seconds,
        "digest": digest(checkpoint),
        "latest": manager.latest_checkpoint,
        "checkpoints": manager.checkpoints,
    }


def restore(strategy: Any, index: int, directory: str, **options: Any) -> dict[str, Any]:
    """Restores through a manager into a fresh state."""
    checkpoint = make_state(strategy, seed=999)
    manager = distckpt.CheckpointManager(
        checkpoint, directory, 3, options=distckpt.ManagerOptions(**options)
    )
    try:
        path = manager.restore_or_initialize()
    except distckpt.errors.DistckptError as error:
        return {"error": type(error).__name__, "text": str(error)}
    with strategy.scope():
        total = float(checkpoint.total.read_value())
    return {
        "path": path,
        "digest": digest(checkpoint),
        "total": total,
        "counter": int(checkpoint.save_counter),
        "latest": manager.latest_checkpoint,
        "checkpoints": manager.checkpoints,
    }


def _caught(call: Any) -> dict[str, Any]:
    """Returns the path that `call` returned, or its error, and how long it took."""
    started = time.monotonic()
    try:
        path, error, text = call(), None, ""
    except distckpt.errors.DistckptError as raised:
        path, error, text = None, type(raised).__name__, str(raised)
    return {"path": path, "error": error, "text": text, "seconds": time.monotonic() - started}


def save_twice_same_number(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Saves number 7 twice with other values, max_to_keep=1."""
    first = save(strategy, index, directory, seed=1, max_to_keep=1, number=7)
    second = save(strategy, index, directory, seed=2, max_to_keep=1, number=7)
    return {"first": first, "second": second}


def two_managers(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Two managers in one program, in turn, in folders of their own and in one folder."""
    checkpoint = make_state(strategy, 5)
    a = distckpt.CheckpointManager(checkpoint, directory + "/a", 2)
    b = distckpt.CheckpointManager(checkpoint, directory + "/b", 1)
    best = distckpt.CheckpointManager(checkpoint, directory + "/a", 1, checkpoint_name="best")
    paths = []
    for _ in range(3):
        checkpoint.step.assign_add(1)
        paths.append([a.save(), b.save(), best.save()])
    return {
        "paths": paths,
        "a": a.checkpoints,
        "b": b.checkpoints,
        "best": best.checkpoints,
        "digest": digest(checkpoint),
    }


def other_model_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 tracks a variable more; then all are alike again."""
    checkpoint = make_state(strategy, 3)
    if index == 1:
        checkpoint.extra = tf.Variable([1.0, 2.0])
    manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    bad = _caught(manager.save)
    if index == 1:
        del checkpoint.extra
    good = _caught(manager.save)
    return {"bad": bad, "good": good, "checkpoints": manager.checkpoints}


def other_number_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 asks for another number."""
    manager = distckpt.CheckpointManager(make_state(strategy, 3), directory, 3)
    return _caught(lambda: manager.save(checkpoint_number=10 + (index == 1)))


def other_directory_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 is given another directory, as TensorFlow's tutorial has it."""
    mine = directory if index != 1 else directory + "/workertemp_1"
    manager = distckpt.CheckpointManager(make_state(strategy, 3), mine, 3)
    return {"save": _caught(manager.save)}


def restore_other_directory_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 restores from another directory."""
    mine = directory if index != 1 else directory + "/other"
    manager = distckpt.CheckpointManager(make_state(strategy, 3), mine, 3)
    return _caught(manager.restore_or_initialize)


def directory_not_shared(strategy: Any, index: int, folders: list[str]) -> dict[str, Any]:
    """The same path leads every worker to another folder."""
    import os

    before = os.getcwd()
    os.chdir(folders[index])
    try:
        manager = distckpt.CheckpointManager(make_state(strategy, 3), "/proc/self/cwd/run", 3)
        return _caught(manager.save)
    finally:
        os.chdir(before)


def one_never_comes(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 leaves out a save; later it is back in step only if it counts the same."""
    checkpoint = make_state(strategy, 3)
    options = distckpt.ManagerOptions(save_deadline=4.0)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3, options=options)
    if index == 1:
        time.sleep(6.0)  # after the others have given up, and well before they do so once more
    late = _caught(manager.save)
    again = _caught(manager.save)
    return {"late": late, "again": again, "checkpoints": manager.checkpoints}


def slow_disk_on_one(strategy: Any, index: int, directory: str, seconds: float) -> dict[str, Any]:
    """Worker 1's disk takes so long to flush each file; a second save finds it mended."""
    checkpoint = make_state(strategy, 3)
    options = distckpt.ManagerOptions(save_deadline=4.0)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3, options=options)
    flush = LocalStorage.flush

    def slowly(self: LocalStorage, path: str) -> None:
        time.sleep(seconds)
        flush(self, path)

    began = time.monotonic()
    with _listening() as said:
        LocalStorage.flush = slowly if index == 1 else flush
        try:
            first = _caught(manager.save)
        finally:
            LocalStorage.flush = flush
    if index != 1:  # worker 1 learns that the save has failed when its file is gone
        time.sleep(max(0.0, began + seconds + 0.5 - time.monotonic()))
    return {"first": first, "said": said, "again": _caught(manager.save)}


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """Collects what distckpt warns of."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("distckpt")
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)


def one_deviates(
    strategy: Any, index: int, directory: str, where: int, in_background: bool
) -> dict[str, Any]:
    """Worker `where` holds another value of `medium/3`; all save with each of the modes."""
    checkpoint = make_state(strategy, 3)
    mine = checkpoint.medium[3].values[0]  # this worker's replica, behind the strategy's back
    original = mine.read_value()
    found: dict[str, Any] = {}
    with _listening() as said:
        for mode in ("error", "warn", "off", "mended"):
            check = "error" if mode == "mended" else mode
            options = distckpt.ManagerOptions(check_replicas=check, enable_async=in_background)
            manager = distckpt.CheckpointManager(checkpoint, directory, 9, options=options)
            if index == where:
                mine.assign(original if mode == "mended" else original + 1.0)
            said.clear()
            found[mode] = _caught(lambda manager=manager: (manager.save(), manager.sync())[0])
            found[mode]["said"] = list(said)
    return found


def restore_without_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 comes late to a restore."""
    options = distckpt.ManagerOptions(restore_deadline=2.0)
    manager = distckpt.CheckpointManager(make_state(strategy, 3), directory, 3, options=options)
    if index == 1:
        time.sleep(4.0)
    return _caught(manager.restore_or_initialize)


class _Angry(tf.train.experimental.PythonState):
    """State that cannot be read."""

    raised = 0.0

    def serialize(self) -> str:
        self.raised = time.monotonic()
        raise RuntimeError("this state cannot be read")

    def deserialize(self, text: str) -> None:
        raise RuntimeError("nor restored")


def capture_fails_on_one(strategy: Any, index: int, directory: str, where: int) -> dict[str, Any]:
    """One worker raises while its state is read; the others must hear of it at once."""
    checkpoint = make_state(strategy, 3)
    if index == where:
        checkpoint.angry = _Angry()
    manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    text = trace = ""
    try:
        manager.save()
    except distckpt.errors.DistckptError as error:
        text, trace = f"{type(error).__name__}: {error}", error.trace
    heard = time.monotonic()  # one clock for all processes of this machine
    raised = 0.0
    if index == where:
        raised = checkpoint.angry.raised
        del checkpoint.angry
    times = {"heard": heard, "raised": raised}
    return {"text": text, "trace": trace, **times, "good": _caught(manager.save)}


def file_size_limit_on_one(strategy: Any, index: int, directory: str, limit: int) -> dict[str, Any]:
    """Worker 1 cannot write more than `limit` bytes into a file; then it can."""
    import resource

    checkpoint = make_state(strategy, 3)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    good = _caught(manager.save)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if index == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        bad = _caught(manager.save)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    listed = manager.checkpoints
    return {"good": good, "bad": bad, "listed": listed, "again": _caught(manager.save)}


def fill_up(strategy: Any, index: int, directory: str, filler: str) -> dict[str, Any]:
    """Saves until the file system is full; then, with room again, once more."""
    import os

    checkpoint = make_state(strategy, 3)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    good = _caught(manager.save)
    if index == 0:
        with open(filler, "wb") as file:
            try:
                while file.write(bytes(1 << 16)):
                    file.flush()
            except OSError:
                os.truncate(filler, max(0, os.path.getsize(filler) - (1 << 16)))
    _barrier(strategy)
    bad = _caught(manager.save)
    listed = manager.checkpoints
    _barrier(strategy)
    if index == 0:
        os.remove(filler)
    _barrier(strategy)
    return {"good": good, "bad": bad, "listed": listed, "again": _caught(manager.save)}


def _barrier(strategy: Any) -> None:
    """Waits for all workers, by a collective."""

    @tf.function
    def reduce() -> Any:
        ones = strategy.run(lambda: tf.constant(1.0))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, ones, axis=None)

    reduce()


def init_fn(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """init_fn is called on every worker when there is no checkpoint, and not when there is."""
    checkpoint = make_state(strategy, 3)
    calls: list[int] = []
    manager = distckpt.CheckpointManager(
        checkpoint, directory, 3, init_fn=lambda: calls.append(1), step_counter=checkpoint.step
    )
    first = manager.restore_or_initialize()
    before = len(calls)
    manager.save()
    second = manager.restore_or_initialize()
    return {"first": first, "before": before, "second": second, "after": len(calls)}


def interval(strategy: Any, index: int, directory: str) -> list[Any]:
    """checkpoint_interval decides alike on all workers."""
    checkpoint = make_state(strategy, 3)
    manager = distckpt.CheckpointManager(
        checkpoint, directory, 3, step_counter=checkpoint.step, checkpoint_interval=3
    )
    paths = []
    for _ in range(7):
        checkpoint.step.assign_add(1)
        paths.append(manager.save())
    return paths


def sizes(strategy: Any, index: int, directory: str, megabytes: int) -> dict[str, Any]:
    """Saves a state of one huge table and some smaller variables."""
    with strategy.scope():
        rows = megabytes * 1024 * 4
        table = tf.Variable(tf.random.stateless_uniform((rows, 64), seed=(1, 2)))
        rest = [tf.Variable(tf.zeros((500, 50 + i))) for i in range(5)]
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(table=table, rest=rest),
        directory,
        1,
        options=distckpt.ManagerOptions(durable=False),
    )
    return {"path": manager.save()}


def model_and_optimizer(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """A Keras 3 model and optimizer under the strategy: saved, spoilt, restored."""
    import keras

    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(3)])
        model.build((None, 200))
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    manager = distckpt.CheckpointManager(checkpoint, directory, 1)
    path = manager.save()
    want = [np.array(v) for v in model.variables]
    for v in model.variables:
        v.assign(np.zeros(v.shape))
    manager.restore_or_initialize()
    same = all(np.array_equal(np.array(v), w) for v, w in zip(model.variables, want, strict=True))
    return {"path": path, "same": same}


def save_caught(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Saves once and tells what was raised."""
    checkpoint = make_state(strategy, 3)
    try:
        manager = distckpt.CheckpointManager(checkpoint, directory, 3)
    except distckpt.errors.DistckptError as error:
        return {"path": None, "error": type(error).__name__, "text": str(error), "seconds": 0.0}
    return _caught(manager.save)


def async_while_training(
    strategy: Any, index: int, directory: str, saves: int, on_read: bool
) -> dict[str, Any]:
    """Trains by collectives without a pause during `saves` asynchronous saves.

    With `on_read`, one variable must be read by a collective when the state is held.
    """
    checkpoint = make_state(strategy, 4)
    if not on_read:
        del checkpoint.total
    with strategy.scope():
        weights = tf.Variable(tf.zeros([40, 30]))
    checkpoint.weights = weights

    @tf.function
    def train() -> Any:
        def replica() -> Any:
            context = tf.distribute.get_replica_context()
            mine = tf.cast(context.replica_id_in_sync_group + 1, tf.float32)
            gradient = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.fill([40, 30], mine))
            weights.assign_add(gradient)
            checkpoint.big.assign_add(tf.ones_like(checkpoint.big))
            return mine

        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica), axis=None)

    options = distckpt.ManagerOptions(enable_async=True, durable=False)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3, options=options)
    started = time.monotonic()
    saved, steps_in_flight = {}, 0
    for _ in range(saves):
        for _ in range(3):
            train()
            steps_in_flight += manager._flight.busy
        if on_read:
            _accumulate(strategy, checkpoint)
        checkpoint.step.assign_add(1)
        if manager.save() in [f"{directory}/ckpt-{saves - back}" for back in range(3)]:
            name = f"ckpt-{int(checkpoint.save_counter)}"
            saved[name] = {**digest(checkpoint), "weights": weights.numpy().tobytes().hex()[:32]}
    for _ in range(10):
        train()
    manager.sync()
    return {
        "saved": saved,
        "checkpoints": manager.checkpoints,
        "steps_in_flight": steps_in_flight,
        "seconds": time.monotonic() - started,
    }


def restored_by_plain(strategy: Any, index: int, path: str) -> dict[str, str]:
    """Restores what `async_while_training` has saved, with TensorFlow alone."""
    checkpoint = make_state(strategy, 999)
    with strategy.scope():
        checkpoint.weights = tf.Variable(tf.ones([40, 30]))
    tf.train.Checkpoint.restore(checkpoint, path).expect_partial()
    return {
        **digest(checkpoint),
        "weights": checkpoint.weights.numpy().tobytes().hex()[:32],
    }


def async_disk_full_on_one(
    strategy: Any, index: int, directory: str, limit: int, where: int, ask: str
) -> dict[str, Any]:
    """The background of one worker's save fails; all hear of it when they `ask`."""
    import resource

    options = distckpt.ManagerOptions(enable_async=True)
    manager = distckpt.CheckpointManager(make_state(strategy, 3), directory, 3, options=options)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if index == where:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        started = _caught(manager.save)
        manager._flight.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    asked = _caught(getattr(manager, ask))
    listed = manager.checkpoints
    again = _caught(manager.save)
    manager.sync()
    return {
        "started": started,
        "asked": asked,
        "listed": listed,
        "again": again,
        "checkpoints": manager.checkpoints,
    }


def async_other_model_on_one(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Worker 1 tracks a variable more; nobody knows before the background compares."""
    checkpoint = make_state(strategy, 3)
    if index == 1:
        checkpoint.extra = tf.Variable([1.0, 2.0])
    options = distckpt.ManagerOptions(enable_async=True)
    manager = distckpt.CheckpointManager(checkpoint, directory, 3, options=options)
    return {"save": _caught(manager.save), "sync": _caught(manager.sync)}


def policies(strategy: Any, index: int, directory: str) -> dict[str, Any]:
    """Calls save() in every step; the workers' clocks and backgrounds are not in step."""
    checkpoint = make_state(strategy, 3)
    options = distckpt.ManagerOptions(
        enable_async=True,
        when_busy="skip",
        save_policy=distckpt.policies.EverySteps(7) | distckpt.policies.EverySeconds(0.2),
    )
    manager = distckpt.CheckpointManager(
        checkpoint, directory, 3, step_counter=checkpoint.step, options=options
    )
    saved = []
    for step in range(60):
        checkpoint.step.assign_add(1)
        time.sleep(0.02 if index == 0 else 0.001 * (step % 3))
        if path := manager.save():
            saved.append((step, path))
    manager.sync()
    return {"saved": saved, "skipped": manager.skipped_saves, "checkpoints": manager.checkpoints}


def worker_state(
    strategy: Any, index: int, directory: str, draw: int, save: bool, asynchronous: bool = False
) -> dict[str, Any]:
    """Restores, draws from an iterator and a generator of its own, saves, draws on."""
    tf.random.set_seed(7)  # what ran before in this process may have set another
    numbers = tf.data.Dataset.range(1000 * index, 1000 * index + 50)
    iterator = iter(numbers.shuffle(50, seed=index).repeat().batch(3))
    generator = tf.random.Generator.from_seed(index)
    own = tf.train.Checkpoint(iterator=iterator, generator=generator)
    options = distckpt.ManagerOptions(enable_async=asynchronous)
    manager = distckpt.CheckpointManager(
        make_state(strategy, 3), directory, 2, worker_checkpoint=own, options=options
    )

    def drawn(count: int) -> list[Any]:
        return [
            (next(iterator).numpy().tolist(), generator.normal([2]).numpy().tolist())
            for _ in range(count)
        ]

    path = manager.restore_or_initialize()
    before = drawn(draw)
    if save:
        manager.save()
    after = drawn(4)
    manager.sync()
    return {"restored": path, "before": before, "after": after}


def _text_of(call: Any) -> str:
    """Returns the text of what `call` raises."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def inputs_that_differ(strategy: Any, index: int) -> dict[str, str]:
    """Inputs that do not fit together; each must be refused on all workers, in due time."""

    def cannot(indices: tf.data.Dataset, context: Any) -> tf.data.Dataset:
        if index == 1:
            raise OSError("no such file")
        return indices

    def own(dataset: tf.data.Dataset, deadline: float = 60.0) -> str:
        return _text_of(
            lambda: distckpt.WorkerInput(lambda _: dataset, strategy, deadline=deadline)
        )

    def indexed(batch: int, dataset_fn: Any) -> str:
        return _text_of(
            lambda: distckpt.IndexedInput(20, batch, dataset_fn, strategy=strategy, deadline=60.0)
        )

    numbers = tf.data.Dataset.range(4 + index)
    texts = {
        "other number": own(numbers),
        "unknown number": own(numbers.filter(lambda number: number > 2)),
        "other batch": indexed(4 + index, lambda indices, _: indices),
        "failing": indexed(4, cannot),
    }
    if index == 1:
        time.sleep(4.0)  # after worker 0 has given up
    texts["missing"] = own(numbers.repeat(), deadline=2.0 if index == 0 else 60.0)
    return texts


def inputs_of_uneven_shares(strategy: Any, index: int) -> tuple[list[int], list[list[int]]]:
    """Eager loops over shares of 1 and 2 of three examples; returns sums and the shares' sizes."""
    batches = distckpt.IndexedInput(
        13, 3, lambda indices, _: indices, strategy=strategy, shuffle=False, epochs=2
    )

    @tf.function
    def step(value: Any) -> Any:
        def replica(indices: Any) -> Any:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(indices))

        return strategy.experimental_local_results(strategy.run(replica, args=(value,)))[0]

    sums, sizes = [], []
    for value in batches:
        sums.append(int(step(value)))
        sizes.append([len(part) for part in strategy.experimental_local_results(value)])
    return sums, sizes
