"""``distckpt watch``: follows the saves in a directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from distckpt.cli import completion, output, reports
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
  distckpt watch /checkpoints/run-1 --json | jq .event

{output.CODES}"""
FOUND, BEGUN, LEFT_OVER = "found", "begun", "left over"
SAVED, DAMAGED, DELETED = "saved", "damaged", "deleted"


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
@output.json_lines_option
def watch_command(directory: str, interval: float, seconds: float | None, as_json: bool) -> None:
    """Show the saves in DIRECTORY as they happen: each worker's phase and bytes. Changes nothing.

    Prints a line for each save that begins or ends, and for each checkpoint that appears or is
    deleted. On a terminal, saves in progress are shown below these lines. Each worker's phase is
    derived from the files it has written so far, so the job is not involved. The exit code is 1 if
    it has found a damaged checkpoint that still exists.
    """
    storage, path = find_directory(directory)
    watcher = Watcher(storage, path)
    end = None if seconds is None else time.monotonic() + seconds
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends the command
        _follow(watcher, interval, end, as_json)
    output.end(wrong=bool(watcher.damaged))


def _follow(watcher: Watcher, interval: float, end: float | None, as_json: bool) -> None:
    console = output.make_console()
    if as_json or not console.is_terminal:
        while True:
            for change in watcher.news():
                click.echo(json.dumps(change.to_json()) if as_json else str(change))
            sys.stdout.flush()
            if not _sleep(interval, end):
                return
    from rich.live import Live

    with Live(console=console, refresh_per_second=10, transient=True) as live:
        while True:
            for change in watcher.news():
                live.console.print(str(change), markup=False)
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


@dataclasses.dataclass(frozen=True)
class Change:
    """A change in a directory.

    Attributes:
      time: When it was seen, in seconds since 1970.
      event: What has happened: FOUND, BEGUN, LEFT_OVER, SAVED,
        DAMAGED or DELETED.
      text: The line for people.
      more: What else ``--json`` prints.
    """

    time: float
    event: str
    text: str
    more: dict[str, Any]

    def __str__(self) -> str:
        """Returns the line for people, with the time."""
        return f"{time.strftime('%H:%M:%S', time.localtime(self.time))}  {self.text}"

    def to_json(self) -> dict[str, Any]:
        """Returns what ``--json`` prints."""
        return {"time": self.time, "event": self.event, **self.more}


class Watcher:
    """Finds the changes in a directory since the last look.

    Args:
      storage: The directory's storage.
      directory: The directory's absolute path or URL.
    """

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._directory = directory
        self._items: dict[tuple[str, str, bool], Item] | None = None
        self._began: dict[str, float] = {}
        self._left: set[str] = set()
        self.saves: list[SaveProgress] = []
        self.damaged: list[Item] = []
        self._names: list[str] | None = None

    def news(self) -> list[Change]:
        """Looks again; returns the changes since the last look."""
        from distckpt.inspection import inventory, save_watch

        now = time.time()
        self.saves = [
            save
            for save in save_watch.look(self._storage, self._directory)
            if save.phase != save_watch.DELETING
        ]
        changes = [*self._of_leftovers(now), *self._of_saves(now)]
        names = self._storage.list(self._directory)
        if names != self._names:  # manifests may be large: read them only after a change
            self._names = names
            changes += self._of(inventory.take(self._storage, self._directory, now), now)
        return changes

    def seconds(self, save: SaveProgress) -> float:
        """Returns how long a save has been seen, in seconds."""
        return time.time() - self._began[save.attempt]

    def _of_leftovers(self, now: float) -> list[Change]:
        """Takes what a dead job has left over off the saves; returns the new ones."""
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
        text = "left over by a job that has ended; `distckpt gc` removes it"
        return [Change(now, LEFT_OVER, f"{s.name}: {text}", {"name": s.name}) for s in new]

    def _of_saves(self, now: float) -> list[Change]:
        attempts = {save.attempt for save in self.saves}
        began = [save for save in self.saves if save.attempt not in self._began]
        self._began = {a: t for a, t in self._began.items() if a in attempts}
        self._began.update((save.attempt, now) for save in began)
        text = "a save has begun"
        return [Change(now, BEGUN, f"{s.name}: {text}", {"name": s.name}) for s in began]

    def _of(self, found: Inventory, now: float) -> list[Change]:
        from distckpt.inspection import inventory

        there = [item for item in found.items if item.state != inventory.DELETED]
        items = {_key(item): item for item in there}
        before, self._items = self._items, items
        self.damaged = reports.damaged(found.items)
        if before is None:
            return [_first(found, self.damaged, now)]
        changes = [
            Change(
                now,
                DAMAGED if item.problem else SAVED,
                _describe(item),
                {"name": item.name, "checkpoint": item.to_json()},
            )
            for key, item in items.items()
            if key not in before
        ]
        names = {item.name for item in there}
        gone = [item.name for item in before.values() if item.name not in names]
        return changes + [Change(now, DELETED, f"{n}: deleted", {"name": n}) for n in gone]


def _key(item: Item) -> tuple[str, str, bool]:
    return item.name, item.manifest.attempt if item.manifest else "", bool(item.problem)


def _first(found: Inventory, damaged: list[Item], now: float) -> Change:
    newest = next((item.name for item in found.items if item.newest), None)
    text = output.plural(len(found.items), "checkpoint")
    text += f", the newest: {newest}" if newest else ""
    for item in damaged:
        text += f"\n  {item.name} is damaged: {item.problem}"
    checkpoints = [item.to_json() for item in found.items]
    return Change(now, FOUND, text, {"newest": newest, "checkpoints": checkpoints})


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
