"""The ways of saving that are compared, and the states that are saved."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of saving.

    Attributes:
      name: What it is called in results.
      label: What it is called in tables and plots.
      library: Whose peer program does it.
      variant: What that program calls it.
      process: Ways of one state with the same `process` share one.
      blocking: Whether the call returns only when the checkpoint is complete.
      flushed: Whether all files have been forced to stable storage by then.
    """

    name: str
    label: str
    library: str
    variant: str
    process: str
    blocking: bool
    flushed: bool


def _way(name: str, label: str, variant: str, process: str, kind: str) -> Way:
    library = name.split("-")[0]
    return Way(name, label, library, variant, process, "blocking" in kind, "fsync" in kind)


WAYS = {
    way.name: way
    for way in (
        _way("distckpt-async", "distckpt, asynchronous", "async", "distckpt-async", "fsync"),
        _way("distckpt", "distckpt, blocking", "durable", "distckpt", "blocking fsync"),
        _way("distckpt-plain", "distckpt, blocking, not durable", "plain", "distckpt", "blocking"),
        _way("tensorflow-async", "TensorFlow, asynchronous", "async", "tensorflow-async", ""),
        _way("tensorflow", "TensorFlow, blocking", "sync", "tensorflow", "blocking"),
        _way("orbax-async", "Orbax, asynchronous", "async", "orbax-async", "fsync"),
        _way("orbax", "Orbax, blocking", "sync", "orbax", "blocking fsync"),
        _way("torch-async", "PyTorch DCP, asynchronous", "async", "torch-async", "fsync"),
        _way("torch-kept", "PyTorch DCP, own stager", "kept", "torch-kept", "fsync"),
        _way("torch", "PyTorch DCP, blocking", "sync", "torch", "blocking fsync"),
        _way("floor-durable", "plain write and fsync", "durable", "floor", "blocking fsync"),
        _way("floor", "plain write", "plain", "floor", "blocking"),
    )
}
# TensorFlow compiles at its first two asynchronous saves. Neither is to count.
WARM_UPS = {"tensorflow-async": 2}
# Who takes longer is measured once, and that without having warmed up.
_SLOW_SECONDS = 10.0
ASYNC = tuple(way.name for way in WAYS.values() if not way.blocking)
OURS = "distckpt-async"


def big(megabytes: int, count: int = 32) -> dict[str, Any]:
    """Returns the description of `megabytes` MiB in `count` variables."""
    rows = megabytes * 2**20 // count // 4096
    title = f"{_amount(megabytes)} in {count} variables"
    return _plain(title, count, [rows, 1024])


def small(count: int) -> dict[str, Any]:
    """Returns the description of `count` variables of 10 floats."""
    return _plain(f"{count:,} variables of 10 floats", count, [10])


def resnet(entries: list[Any]) -> dict[str, Any]:
    """Returns the description of the Keras model, whose variables are `entries`."""
    return {"kind": "resnet", "title": "ResNet50 with Adam", "entries": entries}


def _plain(title: str, count: int, shape: list[int]) -> dict[str, Any]:
    entries = [[f"weights/{n:05d}", shape] for n in range(count)]
    return {"kind": "plain", "title": title, "entries": entries}


def _amount(megabytes: int) -> str:
    return f"{megabytes // 1024} GiB" if megabytes % 1024 == 0 else f"{megabytes} MiB"


def slow(first: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns those samples of a first round that are all there will be of their ways."""
    return {
        name: sample
        for name, sample in first.items()
        if sample["committed"] > _SLOW_SECONDS and name not in WARM_UPS
    }
