"""What must be true after every event, told from the disk itself and not by distckpt's readers."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

import google_crc32c

from distckpt.core import attempts, layout, manifest_json
from distckpt.core.manifest import Manifest
from distckpt.core.tensorflow_format import checkpoint_state
from distckpt.errors import ManifestError
from distckpt.storage.temporary import is_temporary

from .disk import Disk, File, Folder
from .state import data_of, own_of
from .world import Violation

RUN = "/run"
MANIFEST = ".manifest.json"
# TensorFlow's file, if nothing in it is unusual; parsing it as a protocol buffer takes long.
_POINTER = re.compile(
    rb'model_checkpoint_path: "([^"\\]+)"\n'
    rb'(?:all_model_checkpoint_paths: "[^"\\]+"\n'
    rb"|(?:all_model_checkpoint_timestamps|last_preserved_timestamp): [0-9]+[.][0-9]+\n)*"
)

Order = tuple[int, int]


@functools.lru_cache(20_000)
def in_force(data: bytes, index: bytes) -> Manifest | None:
    """Returns the manifest in force beside this index, None if none can be read."""
    try:
        return manifest_json.parse(data, "").in_force(google_crc32c.value(index))
    except ManifestError:
        return None


@functools.lru_cache(20_000)
def meant(step: int, workers: int, files: int, *, collective: bool, own: bool) -> tuple[bytes, ...]:
    """Returns what the files of a manifest must hold, in their order."""
    shared = data_of(step, workers, collective=collective)
    states = own_of(step, workers) if own else ()
    return shared + (b"",) * (files - len(shared) - len(states)) + states


class Oracle:
    """Looks at the directory, and remembers what has been promised.

    Args:
      disk: The disk.
      collective: Whether the state has a value that is read together.
      own: Whether each worker has a state of its own, too.

    Attributes:
      acknowledged: The newest checkpoint that some worker was told is saved.
      newest: The newest checkpoint that is committed.
      commits: How many have been.
      held: Names of checkpoints that somebody has pinned, and was told so.
      excused: Returns whether what is committed now may be older than what was copied in.
      on_commit: Is told of each commit's order.
      on_acknowledged: Is told of the order of what a worker was told is committed.
    """

    def __init__(self, disk: Disk, *, collective: bool, own: bool) -> None:
        self._disk = disk
        self._own = own
        self._collective = collective
        self.acknowledged: Order = (0, 0)
        self.newest: Order = (0, 0)
        self.commits = 0
        self.held: set[str] = set()
        self._history: list[tuple[float, Order]] = []
        self._seen: dict[str, Manifest] = {}
        self._pinned: dict[str, str] = {}
        self._present: dict[str, Manifest] = {}
        # Which directory stands there, and in which an attempt was committed.
        self._era = 0
        self._eras: dict[str, int] = {}
        self.excused: Callable[[], bool] = lambda: False
        self.on_commit: Callable[[Order], None] = lambda order: None
        self.on_acknowledged: Callable[[Order], None] = lambda order: None

    def acknowledge(self, attempt: str, now: float, *, is_old: bool = False) -> None:
        """A worker was told that this attempt is committed.

        Args:
          attempt: Which.
          now: When.
          is_old: Whether it may have been committed in a directory that is gone.
        """
        parsed = attempts.parse_attempt_id(attempt)
        assert parsed is not None
        if self._eras.get(attempt, -1 if is_old else self._era) != self._era:
            return  # in a directory that is gone
        self.on_acknowledged((parsed.term, parsed.sequence))
        self.acknowledged = max(self.acknowledged, (parsed.term, parsed.sequence))
        self._history.append((now, self.acknowledged))
        self._look(None)

    def begin_again(self, acknowledged: Order, now: float) -> None:
        """Another directory, or none, has come into the place of the one before.

        Args:
          acknowledged: What was, when it was as it is now.
          now: The time. Listings from before show nothing of it.
        """
        self._present = self.committed()
        self._seen.update({m.attempt: m for m in self._present.values()})
        self.newest = max((m.order for m in self._present.values()), default=(0, 0))
        self.acknowledged = acknowledged
        self._history = [(now, acknowledged)]
        self._era += 1
        self._eras.update({m.attempt: self._era for m in self._present.values()})
        self._pinned.clear()
        self.held.clear()

    def copied(self, copy: Manifest) -> None:
        """Somebody has copied a checkpoint in."""
        self._seen[copy.attempt] = self._present[copy.name] = copy
        self.newest = copy.order

    @property
    def pinned(self) -> int:
        """How many checkpoints are kept for good."""
        return len(self._pinned)

    def acknowledged_at(self, time: float) -> Order:
        """Returns what was acknowledged at a time."""
        return max((order for at, order in self._history if at <= time), default=(0, 0))

    def look(self, folder: str, name: str, term: int | None) -> None:
        """Looks after a change of `name` in `folder` by a process of this term."""
        if folder == RUN and not is_temporary(name) and ".pending-" not in name:
            self._look(term)  # nobody reads anything else

    def _look(self, term: int | None) -> None:
        present = self.committed()
        for name, found in present.items():
            if found.attempt not in self._seen:
                self._committed(found)
            self._check_whole(name, found)
        if term is not None:
            self._check_removed(present, term)
        self._present = present
        newest = max([m.order for m in present.values()], default=(0, 0))
        if newest < self.newest and not self.excused():
            raise Violation(f"the newest checkpoint was {self.newest} and is {newest}")
        self.newest = newest
        self._check_promise(newest)
        self._check_pinned(present)
        self._check_pointer()

    def pin(self, managed: Iterable[str]) -> None:
        """The chief has saved and pruned: what it manages no more, it keeps for good."""
        managed = frozenset(managed)
        kept = {name: m.attempt for name, m in self.committed().items() if name not in managed}
        self._pinned.update(kept)

    def after_a_loss(self) -> None:
        """Looks after the power has failed: what was not promised may be gone."""
        self._present = self.committed()
        for name, found in self._present.items():
            self._check_whole(name, found)
        self.newest = max((m.order for m in self._present.values()), default=(0, 0))
        self._check_promise(self.newest)
        self._check_pinned(self._present)

    def committed(self) -> dict[str, Manifest]:
        """Returns the manifests in force, by name."""
        run = self._disk.find(RUN)
        found: dict[str, Manifest] = {}
        for name, node in run.entries.items() if isinstance(run, Folder) else ():
            if name.endswith(MANIFEST) and isinstance(node, File):
                index = run.entries.get(layout.index_name(name[: -len(MANIFEST)]))
                if not isinstance(index, File):
                    continue
                manifest = in_force(node.content, index.content)
                if manifest is not None:
                    found[manifest.name] = manifest
        return found

    def order_of(self, number: int | None) -> Order:
        """Returns the order of the commit of save `number`; of None, that of nothing."""
        orders = [m.order for m in self._seen.values() if m.step == number]
        return max(orders, default=(0, 0))

    def _check_promise(self, newest: Order) -> None:
        if newest < self.acknowledged:
            raise Violation(f"{self.acknowledged} was acknowledged; the newest is {newest}")

    def _check_pinned(self, present: dict[str, Manifest]) -> None:
        for name, attempt in list(self._pinned.items()):
            if name not in present:
                raise Violation(f"{name} was to be kept for good")
            if present[name].attempt != attempt:
                del self._pinned[name]  # saved again, it is managed again

    def _check_pointer(self) -> None:
        """Plain TensorFlow goes by its own file: what that names as the newest must be there."""
        run = self._disk.find(RUN)
        node = run.entries.get(layout.POINTER_FILE) if isinstance(run, Folder) else None
        if isinstance(run, Folder) and isinstance(node, File):
            written = _POINTER.fullmatch(node.content)
            latest = written[1].decode() if written else checkpoint_state.parse(node.content).latest
            if layout.index_name(latest) not in run.entries:
                raise Violation(f"TensorFlow's file names {latest}, which is not there")

    def _committed(self, manifest: Manifest) -> None:
        """A checkpoint that has not been there before."""
        self._seen[manifest.attempt] = manifest
        self._eras[manifest.attempt] = self._era
        self.commits += 1
        if manifest.order < self.newest and not self.excused():
            raise Violation(f"{manifest.order} was committed after {self.newest}")
        self.on_commit(manifest.order)

    def _check_whole(self, name: str, manifest: Manifest) -> None:
        run = self._disk.find(RUN)
        assert isinstance(run, Folder)
        contents = meant(
            manifest.step,
            len(manifest.workers),
            len(manifest.files),
            collective=self._collective,
            own=self._own,
        )
        for file, content in zip(manifest.files, contents, strict=True):
            node = run.entries.get(file.name)
            if not isinstance(node, File) or node.content != content:
                what = "is missing" if node is None else "is not what was meant"
                raise Violation(f"{name} {manifest.order} is committed, and {file.name} {what}")

    def _check_removed(self, present: dict[str, Manifest], term: int) -> None:
        for name, old in self._present.items():
            now = present.get(name)
            is_gone = now is None or now.attempt != old.attempt
            if is_gone and old.term > term and not self.excused():
                raise Violation(f"a process of term {term} removed {name} of {old.term}")
