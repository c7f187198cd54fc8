"""The file names of a checkpoint directory. `core.attempts` has those of pending folders.

    <directory>/
      checkpoint                            TensorFlow's pointer to the newest checkpoint
      ckpt-12.index                         a TensorFlow V2 checkpoint: its index …
      ckpt-12.data-00000-of-00004           … and its data files
      ckpt-12.worker-00001-of-00004.*       a small checkpoint of worker 1's own state (with
                                            ".v1" before the last dot when it was saved again)
      ckpt-12.manifest.json                 the commit
      ckpt-13.pending-<attempt>/            a save in progress
        probe                               shows a worker that it sees the chief's directory
        shard-00001-of-00004*               what worker 1 writes (its own state: ".own" after that)
        manifest.json                       the manifest, prepared
        switch.json, final.json             further manifests, if a checkpoint is replaced
        tombstone.json                      the manifest of a checkpoint that is being deleted
        outdated.json                       the manifest of one that plain TensorFlow has replaced
        imported.json                       the manifest of one that is being imported
        checkpoint                          TensorFlow's pointer, prepared
      .distckpt/
        terms/00000007.json                 who owns the directory
        abandoned/00000007-a1b2c3d4e5f60718/  pending folders of dead chiefs, being cleaned up
        quarantine/ckpt-5.json              a checkpoint that was found damaged
        verified/ckpt-5.json                a checkpoint that was read back and found intact
        holds/ckpt-5.pin.json               a checkpoint that must not be deleted
        holds/ckpt-5.lease-<id>.json        a checkpoint that a reader is reading
        stalled/worker-00001.json           how worker 1 ended when another was lost or never came
        rollback.json                       an unfinished rollback
        set_aside/00000007/                 what the rollback has set aside so far
      set-aside-<time>-<term>/              what a rollback has set aside: a directory like this
      .distckpt-doctor-*/                   a test by `distckpt doctor`

The names of data files are TensorFlow's (``tensorflow/core/util/tensor_bundle/naming.cc``). A name
is recognised only if the functions of these two modules would make exactly that name. A file with
any other name is never deleted.

Paths are joined with "/", as TensorFlow does, so that "gs://bucket/run" serves as a directory.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

POINTER_FILE = "checkpoint"
PRIVATE_FOLDER = ".distckpt"
PREPARED_MANIFEST = "manifest.json"
PROBE_FILE = "probe"
SWITCH_MANIFEST = "switch.json"
FINAL_MANIFEST = "final.json"
ROLLBACK_FILE = "rollback.json"
# The prefix of the folders in which `distckpt doctor` tests a directory.
DOCTOR_PREFIX = ".distckpt-doctor-"

INDEX_SUFFIX = ".index"
MANIFEST_SUFFIX = ".manifest.json"

# Our numbers have at most 18 digits; Python refuses to convert numbers of thousands of digits.
LARGEST_NUMBER = 10**18 - 1
_SHARD = "([0-9]{5,18})-of-([0-9]{5,18})"

_SET_ASIDE = re.compile("set-aside-[0-9]{8}-[0-9]{6}-[0-9]{1,18}")
_TERM_FILE = re.compile("([0-9]{8,18})[.]json")
_DATA_FILE = re.compile(f"(.+)[.]data-{_SHARD}", re.DOTALL)
_WORKER_PREFIX = re.compile(f"(.+)[.]worker-{_SHARD}(?:[.]v([0-9]{{1,18}}))?", re.DOTALL)
_HOLD = re.compile("(.+)[.](?:pin|lease-([0-9a-z]+))[.]json", re.DOTALL)
_NUMBERED = re.compile("(.+)-([0-9]{1,18})", re.DOTALL)


# --- Paths --------------------------------------------------------------------------------------


def join(directory: str, *names: str) -> str:
    """Returns the path of ``names`` below `directory`, a local path or a URL such as "gs://b/x"."""
    return posixpath.join(directory, *names)


def name_of_path(directory: str, path: str) -> str:
    """Returns the name of a checkpoint whose path stands in TensorFlow's file `checkpoint`."""
    return path.removeprefix(join(directory, "")).removeprefix("./")


def ancestors(directory: str) -> list[str]:
    """Returns the paths of the folders that `directory` is in, the nearest first."""
    found: list[str] = []
    while (parent := posixpath.dirname(directory.rstrip("/"))) and parent != directory:
        found.append(parent)
        directory = parent
    return found


def terms_folder(directory: str) -> str:
    """Returns the path of the folder with the term files of `directory`."""
    return join(directory, PRIVATE_FOLDER, "terms")


def abandoned_root(directory: str) -> str:
    """Returns the path of the folder into which chiefs move the pending folders of dead chiefs."""
    return join(directory, PRIVATE_FOLDER, "abandoned")


def abandoned_folder(directory: str, term: int, nonce: str) -> str:
    """Returns the path of the folder into which the chief of `term` moves pending folders.

    Args:
      directory: The checkpoint directory.
      term: The chief's term.
      nonce: Lower-case letters and digits that no other chief's term has, even with the same
        number. Another directory may take the place of the chief's own; the chief must not find its
        folder there.
    """
    return join(abandoned_root(directory), f"{term:08d}-{nonce}")


def parse_abandoned_name(folder: str) -> int | None:
    """Returns the term of a folder in the `abandoned_root`, or None if `folder` is not one."""
    return parse_term_name(folder.partition("-")[0] + ".json")


def quarantine_folder(directory: str) -> str:
    """Returns the path of the folder with the notes on checkpoints that were found damaged."""
    return join(directory, PRIVATE_FOLDER, "quarantine")


def verified_folder(directory: str) -> str:
    """Returns the path of the folder with the notes on checkpoints that were found intact."""
    return join(directory, PRIVATE_FOLDER, "verified")


def holds_folder(directory: str) -> str:
    """Returns the path of the folder with pins and leases."""
    return join(directory, PRIVATE_FOLDER, "holds")


def stalled_folder(directory: str) -> str:
    """Returns the path of the folder with the notes of workers that missed another worker."""
    return join(directory, PRIVATE_FOLDER, "stalled")


def rollback_path(directory: str) -> str:
    """Returns the path of the file that says what a rollback is setting aside."""
    return join(directory, PRIVATE_FOLDER, ROLLBACK_FILE)


def set_aside_root(directory: str) -> str:
    """Returns the path of the folder with what unfinished rollbacks have set aside."""
    return join(directory, PRIVATE_FOLDER, "set_aside")


def set_aside_folder(directory: str, term: int) -> str:
    """Returns the path of the folder into which the owner of `term` sets checkpoints aside."""
    return join(set_aside_root(directory), f"{term:08d}")


def private_folders(directory: str) -> tuple[str, ...]:
    """Returns the paths of all folders that distckpt makes for itself, the outermost first."""
    root = join(directory, PRIVATE_FOLDER)
    notes = (quarantine_folder, verified_folder, holds_folder, stalled_folder)
    return (root, *(folder(directory) for folder in (terms_folder, abandoned_root, *notes)))


# --- Checkpoints --------------------------------------------------------------------------------


def numbered_name(checkpoint_name: str, number: int) -> str:
    """Returns the name of a checkpoint: "ckpt-12"."""
    return f"{checkpoint_name}-{number}"


def split_number(name: str) -> tuple[str, int | None]:
    """Returns ("ckpt", 12) for "ckpt-12", and (`name`, None) for a name without a number."""
    match = _NUMBERED.fullmatch(name)
    if not match or numbered_name(match[1], int(match[2])) != name:
        return name, None
    return match[1], int(match[2])


def index_name(name: str) -> str:
    """Returns the name of the index file of checkpoint `name`."""
    return name + INDEX_SUFFIX


def manifest_name(name: str) -> str:
    """Returns the name of the manifest of checkpoint `name`."""
    return name + MANIFEST_SUFFIX


def data_name(name: str, shard: int, shards: int) -> str:
    """Returns the name of data file `shard` of `shards` of checkpoint `name`."""
    return f"{name}.data-{shard:05d}-of-{shards:05d}"


class DataFile(NamedTuple):
    """What the name of a data file says: of which checkpoint, and `shard` (from 0) of `shards`."""

    checkpoint: str
    shard: int
    shards: int


def parse_data_name(file: str) -> DataFile | None:
    """Returns what the name of a data file says, or None if `file` is not the name of one."""
    match = _DATA_FILE.fullmatch(file)
    if not match:
        return None
    parsed = DataFile(match[1], int(match[2]), int(match[3]))
    return parsed if parsed.shard < parsed.shards and data_name(*parsed) == file else None


def worker_prefix(name: str, worker: int, workers: int, version: int = 0) -> str:
    """Returns the prefix of the small checkpoint of worker `worker`'s own state.

    Args:
      name: The checkpoint's name.
      worker: The worker's index.
      workers: The number of workers.
      version: Distinguishes two checkpoints of one name while one replaces the other.
    """
    suffix = f".v{version}" if version else ""
    return f"{name}.worker-{worker:05d}-of-{workers:05d}{suffix}"


class WorkerPrefix(NamedTuple):
    """What the prefix of a worker's own checkpoint says: see `worker_prefix`."""

    checkpoint: str
    worker: int
    workers: int
    version: int


def parse_worker_prefix(prefix: str) -> WorkerPrefix | None:
    """Returns what the prefix of a worker's own checkpoint says, or None if it is not one."""
    match = _WORKER_PREFIX.fullmatch(prefix)
    if not match:
        return None
    parsed = WorkerPrefix(match[1], int(match[2]), int(match[3]), int(match[4] or 0))
    known = parsed.worker < parsed.workers and worker_prefix(*parsed) == prefix
    return parsed if known else None


# --- The private folder -------------------------------------------------------------------------


def term_name(term: int) -> str:
    """Returns the name of the file of `term` in the `terms_folder`."""
    return f"{term:08d}.json"


def parse_term_name(file: str) -> int | None:
    """Returns the term of a file in the `terms_folder`, or None if `file` is not of one."""
    match = _TERM_FILE.fullmatch(file)
    return int(match[1]) if match and term_name(int(match[1])) == file else None


def set_aside_name(time: str, term: int) -> str:
    """Returns the name of the folder with what the owner of `term` has set aside by a rollback.

    Args:
      time: The time of the rollback, as "20261129-110120".
      term: Distinguishes folders of the same second.
    """
    return f"set-aside-{time}-{term}"


def is_set_aside_name(folder: object) -> bool:
    """Returns whether `folder` is a name that `set_aside_name` makes."""
    return isinstance(folder, str) and _SET_ASIDE.fullmatch(folder) is not None


def note_name(name: str) -> str:
    """Returns the name of the note that checkpoint `name` is damaged or was verified."""
    return f"{name}.json"


def pin_name(name: str) -> str:
    """Returns the name of the file that pins checkpoint `name`."""
    return f"{name}.pin.json"


def lease_name(name: str, token: str) -> str:
    """Returns the name of the file of a lease on checkpoint `name`.

    Args:
      name: The checkpoint's name.
      token: Lower-case letters and digits that no other lease has.
    """
    return f"{name}.lease-{token}.json"


def parse_hold_name(file: str) -> tuple[str, str | None] | None:
    """Returns (checkpoint, token) of a lease's file, (checkpoint, None) of a pin's, else None."""
    match = _HOLD.fullmatch(file)
    return (match[1], match[2]) if match else None
