"""Chooses the adapter for a directory."""

from __future__ import annotations

import re

from distckpt import errors
from distckpt.storage import base, gfile, local

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def storage_for(directory: str) -> base.Storage:
    """Returns the storage for `directory`: TensorFlow's for "scheme://…", else local files.

    Touches neither the directory nor TensorFlow.

    Raises:
      errors.ConfigurationError: A "file://" address, which TensorFlow would write without flushing;
        use the plain path.
    """
    scheme = _SCHEME.match(directory)
    if scheme is None:
        return local.LocalStorage()
    if scheme[1].lower() == "file":
        raise errors.ConfigurationError(
            f'{directory}: give the plain path, "{directory[scheme.end() :]}", instead; only then '
            "are files flushed to stable storage"
        )
    return gfile.GFileStorage()
