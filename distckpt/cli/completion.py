"""What the shell completes in place of an argument: names of checkpoints, and of directories.

Whatever goes wrong there is nothing to complete: a shell that waits for the user's next key is no
place for errors. Addresses such as ``gs://…`` are not looked at, as that takes TensorFlow.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem

from distckpt.core import layout
from distckpt.errors import ConfigurationError


def directories(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Lets the shell complete names of directories."""
    return [CompletionItem(incomplete, type="dir")]


def checkpoints(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes the checkpoints that stand where `incomplete` points to; else directories."""
    folder = os.path.dirname(incomplete)
    names = layout.classify(_names(folder)).checkpoints.items()
    paths = [os.path.join(folder, name) for name, files in names if files.has_index]
    found = [CompletionItem(path) for path in paths if path.startswith(incomplete)]
    return found or directories(context, parameter, incomplete)


def pinned(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes the checkpoints that are pinned, also those that are gone."""
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
