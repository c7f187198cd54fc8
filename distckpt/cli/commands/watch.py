"""``distckpt watch``: follows the saves in a directory."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from distckpt.cli import completion, output
from distckpt.cli.target import find_directory

if TYPE_CHECKING:
    from rich.table import Table

    from distckpt.inspection.inventory import Inventory, Item
    from distckpt.inspection.save_watch import SaveProgress
    from distckpt.storage.base import Storage

_EPILOG = f"""\b
Examples:
  distckpt watch /checkpoints/run-1
  distckpt watch /checkpoints/run-1 --for 3600 >> saves.log

{output.CODES}"""


@click.command(
    "watch",
    short_help="Show saves as they happen: each worker's phase and bytes.",
    cls=output.Command,
    epilog=_EPILOG,
)
@click.argument("directory", default=".", shell_complete=completion.directories)
@click.option(
    "--interval",
    type=click.FloatRange(0.05),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(0.0),
    metavar="SECONDS",
    help="End after this time. Default: run until Ctrl-C.",
)
def watch_command(directory: str, interval: float, seconds: float | None) -> None:
    """Show the saves in DIRECTORY as they happen: each worker's phase and bytes. Changes nothing.

    Prints a line for each save that begins or ends, and for each checkpoint that appears or is
    deleted. On a terminal, saves in progress are shown below these lines. Each worker's phase is
    derived from the files it has written so far, so the job is not involved.
    """
    storage, path = find_directory(directory)
    watcher = Watcher(storage, path)
    end = None if seconds is None else time.monotonic() + seconds
    try:
        _follow(watcher, interval, end)
    except KeyboardInterrupt:
        return  # the usual end


def _follow(watcher: Watcher, interval: float, end: float | None) -> None:
    console = output.make_console()
    if not console.is_terminal:
        while True:
            for line in watcher.news():
                click.echo(line)
            sys.stdout.flush()
            if not _sleep(interval, end):
                return
    from rich.live import Live

    with Live(console=console, refresh_per_second=10, transient=True) as live:
        while True:
            for line in watcher.news():
                live.console.print(line, markup=False)
            live.update(_table(watcher))
            if not _sleep(interval, end):
                return


def _sleep(interval: float, end: float | None) -> bool:
    """Waits for the next look; returns whether there is one."""
    left = interval if end is None else min(interval, end - time.monotonic())
    if left <= 0:
        return False
    time.sleep(left)
    return True


class Watcher:
    """Finds the changes in a directory since the last look.

    Args:
      storage: The directory's storage.
      directory: The directory's absolute path or URL.
    """

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._directory = directory
        self._items: dict[tuple[str, str], Item] | None = None
        self._began: dict[str, float] = {}
        self._left: set[str] = set()
        self.saves: list[SaveProgress] = []
        self._names: list[str] | None = None

    def news(self) -> list[str]:
        """Looks again; returns a line for each change since the last look."""
        from distckpt.inspection import inventory, save_watch

        now = time.time()
        self.saves = [
            save
            for save in save_watch.look(self._storage, self._directory)
            if save.phase != save_watch.DELETING
        ]
        lines = [*self._of_leftovers(), *self._of_saves(now)]
        names = self._storage.list(self._directory)
        if names != self._names:  # manifests may be large: read them only after a change
            self._names = names
            lines += self._of(inventory.take(self._storage, self._directory, now))
        return [f"{_clock(now)}  {line}" for line in lines]

    def seconds(self, save: SaveProgress) -> float:
        """Returns how long a save has been seen, in seconds."""
        return time.time() - self._began[save.attempt]

    def _of_leftovers(self) -> list[str]:
        """Takes what a dead job has left over off the saves; returns a line for each new one."""
        from distckpt.core.attempts import parse_attempt_id
        from distckpt.ownership import owner_record

        if not self.saves:
            return []
        owner = owner_record.find(self._storage, self._directory)
        left = []
        for save in self.saves:
            attempt = parse_attempt_id(save.attempt)
            if attempt is None or owner is None or not owner.may_still_save(attempt.term):
                left.append(save)
        self.saves = [save for save in self.saves if save not in left]
        new = [save for save in left if save.attempt not in self._left]
        self._left.update(save.attempt for save in new)
        return [
            f"{s.name}: left over by a job that has ended; `distckpt gc` removes it" for s in new
        ]

    def _of_saves(self, now: float) -> list[str]:
        attempts = {save.attempt for save in self.saves}
        began = [save for save in self.saves if save.attempt not in self._began]
        self._began = {a: t for a, t in self._began.items() if a in attempts}
        self._began.update((save.attempt, now) for save in began)
        return [f"{save.name}: a save has begun" for save in began]

    def _of(self, found: Inventory) -> list[str]:
        items = {(i.name, i.manifest.attempt if i.manifest else ""): i for i in found.items}
        before, self._items = self._items, items
        if before is None:
            newest = next((i.name for i in found.items if i.newest), "none")
            return [f"{output.plural(len(items), 'checkpoint')}, the newest: {newest}"]
        lines = [_describe(item) for key, item in items.items() if key not in before]
        names = {name for name, _ in items}
        gone = [item.name for (name, _), item in before.items() if name not in names]
        return lines + [f"{name}: deleted" for name in gone]


def _describe(item: Item) -> str:
    m = item.manifest
    if item.problem:
        return f"{item.name}: {item.state}. {item.problem}"
    if m is None:
        return f"{item.name}: {item.state}, {output.size(item.bytes)}"
    metrics = "".join(f", {name} {value:.6g}" for name, value in sorted(m.metrics.items()))
    step = "" if m.step is None else f", step {m.step}"
    return (
        f"{item.name}: committed{step}, {output.size(m.bytes)} by "
        f"{output.plural(len(m.workers), 'worker')} in {output.duration(m.seconds)}{metrics}"
    )


def _clock(now: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now))


def _table(watcher: Watcher) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("save", "phase"):
        table.add_column(column)
    for column in ("for", "worker", "bytes"):
        table.add_column(column, justify="right")
    for save in watcher.saves:
        seconds = output.duration(watcher.seconds(save))
        table.add_row(save.name, save.phase, seconds, "all", output.size(save.bytes))
        for one in save.workers:
            table.add_row("", one.phase, "", str(one.worker), output.size(one.bytes))
    return table
