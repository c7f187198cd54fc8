"""Free ports for the workers."""

from __future__ import annotations

import portpicker

from distckpt.errors import ConfigurationError


def pick_ports(count: int) -> list[int]:
    """Returns `count` TCP ports that were free a moment ago, never the same in two calls.

    Raises:
      ConfigurationError: There are too few free ports.
    """
    # Ports are never returned, so that a restart in this process gets fresh ports: another process
    # may still hold the old ones. If a port is taken before the worker binds it, the worker fails,
    # and a restart tries other ports.
    try:
        return [portpicker.pick_unused_port() for _ in range(count)]
    except portpicker.NoFreePortFoundError as error:
        raise ConfigurationError("There is no free port on this machine.") from error
