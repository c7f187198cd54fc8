"""Tables of the commands.

rich draws them on a terminal. Cells are never cut: if the terminal is too narrow, whole columns are
hidden, the least important first, and a line names them. If the output is not a terminal, tables
have no colours, no lines and no width limit, so that programs can read them; then rich is not even
imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import click

from distckpt.cli.output import make_console

if TYPE_CHECKING:
    from rich.table import Table

# rich draws tables of at most this many rows; it takes half a millisecond for each.
_MOST_DRAWN = 200
# The last column may be wrapped to this width, but no further.
_NARROWEST_LAST = 20
_ENDLESS = 100_000


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: str = "",
    hide: Sequence[str] = (),
) -> None:
    """Prints a table.

    Args:
      columns: The headings.
      rows: The cells of each row; rich's markup in them is not interpreted.
      right: The alignment of each column: "r" for flush right, any other letter for flush left,
        e.g. "lrr".
      hide: The headings of columns that may be hidden on a narrow terminal, in this order.
    """
    rows = list(rows)
    if sys.stdout.isatty() and len(rows) <= _MOST_DRAWN:
        _draw(columns, rows, right, hide)
        return
    lines = _aligned([[click.style(name, bold=True) for name in columns], *rows], right)
    click.echo("\n".join(lines))


def _draw(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: str, hide: Sequence[str]
) -> None:
    console = make_console()
    hidden: list[str] = []
    table = _table(columns, rows, right, hidden)
    for column in hide:
        if _least_width(table) <= console.width:
            break
        if column in columns:
            hidden.append(column)
            table = _table(columns, rows, right, hidden)
    if _least_width(table) > console.width:
        console.width = _ENDLESS  # the terminal wraps the lines; nothing is lost
    console.print(table)
    if hidden:
        names = ", ".join(column for column in columns if column in hidden)
        click.echo(f"Hidden on a terminal of {make_console().width} columns: {names}.")


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: str, hidden: Sequence[str]
) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = [number for number, column in enumerate(columns) if column not in hidden]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for number in shown:
        justify: Literal["left", "right"] = "right" if right[number : number + 1] == "r" else "left"
        is_last = number == shown[-1]
        table.add_column(columns[number], justify=justify, no_wrap=not is_last, overflow="fold")
    for row in rows:
        table.add_row(*(Text.from_ansi(row[number]) for number in shown))
    return table


def _width_of(table: Table) -> int:
    """Returns the width of a table in which nothing is wrapped."""
    console = make_console()
    return console.measure(table, options=console.options.update(max_width=_ENDLESS)).maximum


def _least_width(table: Table) -> int:
    """Returns the width of a table whose last column is wrapped as far as it may be."""
    last = [cell.plain for cell in table.columns[-1].cells if hasattr(cell, "plain")]
    widest = max(map(_width, last), default=0)
    return _width_of(table) - max(0, widest - _NARROWEST_LAST)


def _aligned(rows: Sequence[Sequence[str]], right: str) -> Iterator[str]:
    """Yields rows as lines with aligned cells, in milliseconds where rich takes seconds."""
    plain = [[click.unstyle(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*plain, strict=True)]
    for row, bare in zip(rows, plain, strict=True):
        line = []
        for number, cell in enumerate(row):
            space = " " * (widths[number] - _width(bare[number]))
            line.append(space + cell if right[number : number + 1] == "r" else cell + space)
        yield "  ".join(line).rstrip()


def _width(text: str) -> int:
    """Returns how many columns a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
