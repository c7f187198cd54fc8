"""What a person or a script may do to the directory itself while jobs use it.

Each of these changes is complete, and on the disk, at once.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from distckpt.core import attempts, layout, listings, manifest_json
from distckpt.core.manifest import Manifest
from distckpt.ownership import owner_record

from .disk import File, Folder
from .oracle import RUN
from .world import Task, Violation

if TYPE_CHECKING:
    from .process import Process
    from .run import Run

PRIVATE = f"{RUN}/{layout.PRIVATE_FOLDER}"
TERMS = layout.terms_folder(RUN)
# Changes in these folders are checked.
WATCHED = (RUN, TERMS)
# The numbers of copied checkpoints begin here: no job of a run reaches them.
COPIES = 900


class Place:
    """Which directory is at the path, and which processes have owned it.

    A process may change public files of a directory if it has taken a term in that directory, or
    in the one of which it is a copy. A process that owned it before must not replace an owner that
    came later.

    Args:
      run: The run.

    Attributes:
      copied_at: The event of the last copy; a save that had begun before may be older.
      copies: Names of checkpoints that have been copied in.
      replaced_at: The event at which the directory was last replaced by another one, or by none.
      unmarked_at: The event at which the private folder was last removed, with all pins.
      is_untidy: Whether the marks of unfinished deletions have been removed.
      touched: Whether anything has been done to the directory.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._takers: set[str] = set()
        self._all: set[str] = set()
        self.copied_at = -1
        self.unmarked_at = -1
        self.replaced_at = -1
        self.copies: list[str] = []
        self.is_untidy = False
        self.touched = False

    def changed(self, folder: str, name: str, process: Process) -> None:
        """Checks a change of `name` in `folder` by `process`."""
        if folder == TERMS:
            self._check_term(name, process)
            return
        is_public = folder == RUN and not name.startswith(".") and ".pending-" not in name
        if is_public and process.name not in self._takers:
            raise Violation(f"{process.name} has changed {name} in a directory of others")

    def _check_term(self, file: str, process: Process) -> None:
        term = layout.parse_term_name(file)
        if term is None:
            return
        owners = self.owners()
        mine = [number for number, who in owners if who == process.name]
        if term not in mine:
            is_gone = term not in [number for number, _ in owners]
            if is_gone and process.name not in self._takers:
                raise Violation(f"{process.name} has removed term {term} of others")
            return
        if process.name in self._all:  # it has been here before, or in one that is gone
            last = max([0, *(number for number in mine if number != term)])
            others = [who for n, who in owners if who != process.name and last < n < term]
            if others:
                raise Violation(f"{process.name} comes back and takes over from {others}")
        self._takers.add(process.name)
        self._all.add(process.name)
        self._run.succession.took(process.job.number, self._run.world.count)

    def owners(self) -> list[tuple[int, str]]:
        """Returns (term, process) of all terms' files."""
        folder = self._run.disk.find(TERMS)
        found = []
        for name, node in folder.entries.items() if isinstance(folder, Folder) else ():
            term = layout.parse_term_name(name)
            if term is not None and isinstance(node, File):
                said = owner_record.parse(term, node.content)
                names = [
                    p.name for p in self._run.processes if (p.host, p.pid) == (said.host, said.pid)
                ]
                found += [(term, name) for name in names]
        return found

    def replaced(self) -> None:
        """Notes that the directory was replaced by another one, or by none."""
        self.touched, self.replaced_at = True, self._run.world.count
        self._takers = {process for _, process in self.owners()}
        self._run.checks.forget_promises()
        self._run.succession.replaced()


# --- What is done -------------------------------------------------------------------------------


def clear(run: Run, process: Process, task: Task) -> None:
    """Somebody removes the directory."""
    if run.disk.find(RUN) is not None:
        run.disk.unlink(RUN)
        run.disk.flush_folder("/")
        run.place.replaced()
        run.oracle.begin_again((0, 0), run.world.now)


def clear_for_another_job(run: Run, process: Process, task: Task) -> None:
    """Somebody removes the directory, and starts a job there while the first one still runs."""
    clear(run, process, task)
    run.start_job(by_mistake=True)


def move_away(run: Run, process: Process, task: Task) -> None:
    """Somebody moves the directory away."""
    if run.disk.find(RUN) is not None:
        run.disk.move(RUN, f"/moved-{run.world.count}")
        run.disk.flush_folder("/")
        run.place.replaced()
        run.oracle.begin_again((0, 0), run.world.now)


def move_away_for_another_job(run: Run, process: Process, task: Task) -> None:
    """Somebody moves the directory away, and starts a job there while the first one still runs."""
    move_away(run, process, task)
    run.start_job(by_mistake=True)


def remove_private_folder(run: Run, process: Process, task: Task) -> None:
    """Somebody removes the private folder, which looks like any hidden folder."""
    if run.disk.find(PRIVATE) is None:
        return
    run.place.is_untidy |= _has_abandoned(run.disk.find(RUN))  # type: ignore[arg-type]
    run.place.unmarked_at = run.world.count
    run.disk.unlink(PRIVATE)
    run.disk.flush_folder(RUN)
    run.place.touched = True
    run.oracle.held.clear()
    run.succession.replaced()  # it no longer says which jobs have come


def restore_backup(run: Run, process: Process, task: Task) -> None:
    """Somebody copies the directory, and a little later restores the copy.

    The copy has no unfinished saves.
    """
    there = run.disk.find(RUN)
    if not isinstance(there, Folder):
        return
    copy, acknowledged = _copy(there), run.oracle.acknowledged
    held = set(run.oracle.held)
    pending = listings.classify(there.entries).pending

    def put_back(task: Task) -> None:
        run.world.tell(task.name, "  the backup is put back")
        if run.disk.find(RUN) is not None:
            run.disk.unlink(RUN)
        run.disk.link(RUN, copy)
        run.disk.flush_folder("/")
        run.place.replaced()
        run.place.is_untidy |= bool(pending) or _has_abandoned(copy)
        run.oracle.begin_again(acknowledged, run.world.now)
        run.oracle.held = held
        run.checks.note_fault()

    later = run.world.count + 1 + run.choices.below(120)
    run.world.faults.setdefault(later, put_back)


def copy_in(run: Run, process: Process, task: Task) -> None:
    """Somebody copies a checkpoint in from a job that has been restarted more often."""
    committed = sorted(run.oracle.committed().items())
    folder = run.disk.find(RUN)
    if not committed or not isinstance(folder, Folder):
        return
    name, manifest = committed[-1]
    if manifest.replaces is not None:
        return
    term = max([run.oracle.newest[0], *(n for n, _ in run.place.owners())])
    copy = _renamed(manifest, f"ckpt-{COPIES + len(run.place.copies)}", term + run.choices.of(1, 3))
    names = {old.name: new.name for old, new in zip(manifest.files, copy.files, strict=True)}
    names[layout.index_name(name)] = copy.index.name
    run.place.copied_at = run.world.count
    run.place.copies.append(copy.name)
    run.place.touched = True
    for old, new in names.items():
        _place(run, new, folder.entries[old].content)  # type: ignore[union-attr]
    _place(run, layout.manifest_name(copy.name), manifest_json.render(copy))
    run.disk.flush_folder(RUN)
    run.oracle.copied(copy)


def _has_abandoned(folder: Folder) -> bool:
    """Returns whether there are folders of attempts that are being settled."""
    private = folder.entries.get(layout.PRIVATE_FOLDER)
    root = private.entries.get("abandoned") if isinstance(private, Folder) else None
    return isinstance(root, Folder) and bool(root.entries)


def _renamed(manifest: Manifest, name: str, term: int) -> Manifest:
    """Returns the manifest of a copy, as another job would have written it."""
    old = len(manifest.name)
    return dataclasses.replace(
        manifest,
        name=name,
        term=term,
        sequence=1,
        attempt=attempts.attempt_id(term, 1, f"{COPIES}"),
        follows=None,
        index=dataclasses.replace(manifest.index, name=name + manifest.index.name[old:]),
        files=tuple(dataclasses.replace(f, name=name + f.name[old:]) for f in manifest.files),
        worker_states=tuple(
            dataclasses.replace(s, prefix=name + s.prefix[old:]) for s in manifest.worker_states
        ),
    )


def _place(run: Run, name: str, content: bytes) -> None:
    file = File(content, "somebody")
    file.stable = content
    run.disk.link(f"{RUN}/{name}", file)


def _copy(folder: Folder) -> Folder:
    """Returns a copy of the visible content of a folder; the copy is on the disk."""
    copy = Folder()
    for name, node in folder.entries.items():
        if attempts.parse_pending_name(name) is not None:
            continue
        if isinstance(node, Folder):
            copy.entries[name] = _copy(node)
        else:
            file = copy.entries[name] = File(node.content, node.whose)
            file.stable = file.content
    copy.stable = dict(copy.entries)
    return copy


KINDS = (
    clear,
    clear_for_another_job,
    move_away,
    move_away_for_another_job,
    remove_private_folder,
    restore_backup,
    copy_in,
    copy_in,
)
