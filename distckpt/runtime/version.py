"""The installed version of distckpt."""

from __future__ import annotations

from importlib import metadata

try:
    VERSION = metadata.version("distckpt")
except metadata.PackageNotFoundError:  # running from its source
    VERSION = "0+unknown"
