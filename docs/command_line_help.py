"""Hook of MkDocs: replaces a mark in a page by the ``--help`` text of every command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from distckpt.cli import main

MARK = "<!-- the help of every command -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns the page with the help in place of the mark. MkDocs calls it for each page."""
    if MARK not in markdown:
        return markdown
    return markdown.replace(MARK, "\n".join(sections(main, "distckpt")))


def sections(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[str]:
    """Yields a section for a command and for each one below it, by name.

    Args:
      command: The command.
      name: How it is called: "distckpt".
      parent: The context of the group that contains it.
    """
    settings = {"terminal_width": 88, **command.context_settings}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield f"## `{context.command_path}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from sections(found, below, context)
