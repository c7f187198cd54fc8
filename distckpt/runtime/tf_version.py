"""Which TensorFlow distckpt needs, and what to say if there is none.

distckpt does not depend on the package ``tensorflow``, because another package may provide it:
``tensorflow-cpu``, ``tf-nightly``, a vendor's build. pip would install ``tensorflow`` next to it.
"""

from __future__ import annotations

import functools
import logging
import re

OLDEST, NEWEST = (2, 16), (2, 21)
_log = logging.getLogger("distckpt")


def is_missing(error: ImportError) -> bool:
    """Returns whether `error` says that no TensorFlow is installed."""
    return isinstance(error, ModuleNotFoundError) and error.name == "tensorflow"


def missing() -> str:
    """Returns what to do if no TensorFlow is installed."""
    return (
        f"This needs TensorFlow {_text(OLDEST)} to {_text(NEWEST)}, and none is installed: "
        "run `pip install 'distckpt[tensorflow]'`, or install another build of it, such as "
        "tensorflow-cpu."
    )


def explained(error: ModuleNotFoundError, name: str) -> ImportError:
    """Returns the error to raise for `error`.

    Args:
      error: The import of something that `name` needs has failed.
      name: What was asked for.

    Returns:
      An error that says what to install, if no TensorFlow is installed; else `error` itself.
    """
    return ImportError(f"{name}: {missing()}") if is_missing(error) else error


@functools.cache
def check(version: str) -> None:
    """Warns once if distckpt was not tested with this version of TensorFlow.

    Args:
      version: ``tf.version.VERSION``, e.g. "2.21.0" or "2.22.0-dev20261101".
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not OLDEST <= (int(found[1]), int(found[2])) <= NEWEST:
        _log.warning(
            "distckpt was tested with TensorFlow %s to %s, but this is %s.",
            _text(OLDEST),
            _text(NEWEST),
            version,
        )


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
