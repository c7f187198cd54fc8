"""Free ports for the workers."""

from __future__ import annotations

import portpicker

from distckpt.errors import ConfigurationError


def pick_ports(count: int) -> list[int]:
    """Returns `count` TCP ports that were free a moment ago, and differ from those of all calls.

    Raises:
      ConfigurationError: There is none.
    """
    # Never given back, so that a restart in this process gets fresh ones: somebody may still hold
    # on to the old. A port can be taken by others before the worker binds it; then the worker
    # fails, and a restart tries others.
    try:
        return [portpicker.pick_unused_port() for _ in range(count)]
    except portpicker.NoFreePortFoundError as error:
        raise ConfigurationError("There is no free port on this machine.") from error
