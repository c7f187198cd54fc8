"""Shell completion of arguments: names of checkpoints and directories.

After any error there is no completion, because a shell in the middle of a command line must not
show errors. URLs such as ``gs://…`` are not completed, because reading them requires TensorFlow.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem

from distckpt.core import layout, listings
from distckpt.errors import ConfigurationError


def directories(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Lets the shell complete names of directories."""
    return [CompletionItem(incomplete, type="dir")]


def checkpoints(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes the checkpoints in the directory part of `incomplete`; else directories."""
    folder = os.path.dirname(incomplete)
    names = listings.classify(_names(folder)).checkpoints.items()
    paths = [os.path.join(folder, name) for name, files in names if files.has_index]
    found = [CompletionItem(path) for path in paths if path.startswith(incomplete)]
    return found or directories(context, parameter, incomplete)


def pinned(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes pinned checkpoints, also those that no longer exist."""
    folder = os.path.dirname(incomplete)
    holds = map(layout.parse_hold_name, _names(layout.holds_folder(folder)))
    names = sorted(hold[0] for hold in holds if hold is not None and hold[1] is None)
    paths = [os.path.join(folder, name) for name in names]
    found = [CompletionItem(path) for path in paths if path.startswith(incomplete)]
    return found or directories(context, parameter, incomplete)


def _names(folder: str) -> list[str]:
    if "://" in folder:
        return []
    from distckpt.storage.choose import storage_for

    try:
        return storage_for(folder).list(os.path.expanduser(folder) or os.curdir)
    except (OSError, ConfigurationError):
        return []
