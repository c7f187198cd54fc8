"""Ready-made listeners for `ManagerOptions.listeners`; see docs/events.md.

    from distckpt.listeners import JsonLines, Log, Prometheus, TensorBoard

Any function that takes an event is a listener, too. Names are imported at their first use: some
need TensorFlow or the package of an extra.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distckpt.listeners.jsonl import JsonLines as JsonLines
    from distckpt.listeners.log import Log as Log
    from distckpt.listeners.prometheus import Prometheus as Prometheus
    from distckpt.listeners.tensorboard import TensorBoard as TensorBoard

_WHERE = {
    "JsonLines": "distckpt.listeners.jsonl",
    "Log": "distckpt.listeners.log",
    "Prometheus": "distckpt.listeners.prometheus",
    "TensorBoard": "distckpt.listeners.tensorboard",
}

__all__ = ["JsonLines", "Log", "Prometheus", "TensorBoard"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'distckpt.listeners' has no attribute {name!r}")
    try:
        module = importlib.import_module(_WHERE[name])
    except ModuleNotFoundError as error:
        from distckpt.runtime import tf_version

        raise tf_version.explained(error, f"distckpt.listeners.{name}") from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
