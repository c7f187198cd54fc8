"""Reads ``TF_CONFIG``, by which a process knows its job."""

from __future__ import annotations

import json
import os
from typing import Any

from distckpt.errors import ConfigurationError


def read() -> dict[str, Any]:
    """Returns ``TF_CONFIG``; empty if there is none.

    Raises:
      ConfigurationError: It is not a JSON object.
    """
    return parse(os.environ.get("TF_CONFIG", ""))


def parse(text: str) -> dict[str, Any]:
    """Returns the object in `text`; empty if there is none.

    Raises:
      ConfigurationError: It is not a JSON object.
    """
    try:
        config = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise ConfigurationError(f"TF_CONFIG is not valid JSON: {error}.") from None
    if not isinstance(config, dict):
        raise ConfigurationError(f"TF_CONFIG must be a JSON object, got {text!r}.")
    return config
