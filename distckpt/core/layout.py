"""Every file name of a checkpoint directory, made and understood in one place.

    <directory>/
      checkpoint                            TensorFlow's pointer to the newest checkpoint
      ckpt-12.index                         a TensorFlow V2 checkpoint: its index …
      ckpt-12.data-00000-of-00004           … and its data files
      ckpt-12.worker-00001-of-00004.*       a small checkpoint of what only worker 1 has (with
                                            ".v1" before the last dot when it was saved again)
      ckpt-12.manifest.json                 the commit
      ckpt-13.pending-<attempt>/            a save in progress
        probe                               shows a worker that it sees the chief's directory
        shard-00001-of-00004*               what worker 1 writes
        manifest.json                       the manifest, prepared
        switch.json, final.json             others on their way, when a checkpoint is replaced
        tombstone.json                      the manifest of a checkpoint that is being deleted
        outdated.json                       a manifest that plain TensorFlow has saved over
        checkpoint                          TensorFlow's pointer, on its way
      .distckpt/
        epochs/00000007.json                who owns the directory
        abandoned/00000007/                 pending folders of dead chiefs, being settled
        quarantine/ckpt-5.json              a checkpoint that was found damaged
        verified/ckpt-5.json                a checkpoint that was read back and found right
        holds/ckpt-5.pin.json               a checkpoint that is not to be deleted
        holds/ckpt-5.lease-<id>.json        one that a reader is reading

The names of data files are TensorFlow's (``tensorflow/core/util/tensor_bundle/naming.cc``). A name
is understood only if it is exactly what the functions here would have made: what is not understood
is nobody's to delete.

Paths are joined with "/", as TensorFlow does, so that "gs://bucket/run" serves as a directory.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from distckpt.errors import ConfigurationError, ManifestError

POINTER_FILE = "checkpoint"
PRIVATE_FOLDER = ".distckpt"
PREPARED_MANIFEST = "manifest.json"
PROBE_FILE = "probe"
SWITCH_MANIFEST = "switch.json"
FINAL_MANIFEST = "final.json"
# How the folders begin in which `distckpt doctor` tries a directory out.
DOCTOR_PREFIX = ".distckpt-doctor-"

_INDEX_SUFFIX = ".index"
_MANIFEST_SUFFIX = ".manifest.json"

# No number of ours has more than 18 digits; Python refuses to convert thousands of them.
LARGEST_NUMBER = 10**18 - 1
_ATTEMPT = "[0-9]{8,18}-[0-9]{6,18}-[0-9a-z]+"
_SHARD = "([0-9]{5,18})-of-([0-9]{5,18})"

_ATTEMPT_ID = re.compile("([0-9]{8,18})-([0-9]{6,18})-([0-9a-z]+)")
_EPOCH_FILE = re.compile("([0-9]{8,18})[.]json")
_DATA_FILE = re.compile(f"(.+)[.]data-{_SHARD}", re.DOTALL)
_WORKER_PREFIX = re.compile(f"(.+)[.]worker-{_SHARD}(?:[.]v([0-9]{{1,18}}))?", re.DOTALL)
_HOLD = re.compile("(.+)[.](?:pin|lease-([0-9a-z]+))[.]json", re.DOTALL)
_PENDING = re.compile(f"(.+)[.]pending-({_ATTEMPT})", re.DOTALL)
_NUMBERED = re.compile("(.+)-([0-9]{1,18})", re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_DRIVE = re.compile("[A-Za-z]:")


# --- Paths --------------------------------------------------------------------------------------


def join(directory: str, *names: str) -> str:
    """Returns the path of ``names`` below `directory`, a local path or a URL such as "gs://b/x"."""
    return posixpath.join(directory, *names)


def ancestors(directory: str) -> list[str]:
    """Returns the paths of the folders that `directory` is in, the nearest first."""
    found: list[str] = []
    while (parent := posixpath.dirname(directory.rstrip("/"))) and parent != directory:
        found.append(parent)
        directory = parent
    return found


def epochs_folder(directory: str) -> str:
    """Returns the path of the folder with the epoch files of `directory`."""
    return join(directory, PRIVATE_FOLDER, "epochs")


def abandoned_root(directory: str) -> str:
    """Returns the path of the folder into which chiefs move the pending folders of dead ones."""
    return join(directory, PRIVATE_FOLDER, "abandoned")


def abandoned_folder(directory: str, epoch: int) -> str:
    """Returns the path of the folder into which the chief of `epoch` moves them."""
    return join(abandoned_root(directory), f"{epoch:08d}")


def quarantine_folder(directory: str) -> str:
    """Returns the path of the folder with the notes on checkpoints that were found damaged."""
    return join(directory, PRIVATE_FOLDER, "quarantine")


def verified_folder(directory: str) -> str:
    """Returns the path of the folder with the notes on checkpoints that were found right."""
    return join(directory, PRIVATE_FOLDER, "verified")


def holds_folder(directory: str) -> str:
    """Returns the path of the folder with pins and leases."""
    return join(directory, PRIVATE_FOLDER, "holds")


def private_folders(directory: str) -> tuple[str, ...]:
    """Returns the paths of all folders that distckpt makes for itself, the outermost first."""
    root = join(directory, PRIVATE_FOLDER)
    folders = (epochs_folder, abandoned_root, quarantine_folder, verified_folder, holds_folder)
    return (root, *(folder(directory) for folder in folders))


# --- Checkpoints --------------------------------------------------------------------------------


def check_checkpoint_name(name: str) -> str:
    """Returns `name` if it can begin the names of checkpoints, as "ckpt" does.

    Raises:
      ConfigurationError: It is empty, has a separator, a control character or what UTF-8 cannot
        express, or stands for another file of the directory.
    """
    why = _refusal(name)
    if not why and name == PRIVATE_FOLDER:
        why = "it is the name of another file there"
    if not why and _CONTROL.search(name):
        why = "it has a control character"
    if not why and not _is_unicode(name):
        why = "it is not valid Unicode"
    if why:
        raise ConfigurationError(
            f"checkpoint_name={name!r} cannot be used: {why}. It must be a plain file name such as "
            '"ckpt"; put folders into `directory`.'
        )
    return name


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
    return name + _INDEX_SUFFIX


def manifest_name(name: str) -> str:
    """Returns the name of the manifest of checkpoint `name`."""
    return name + _MANIFEST_SUFFIX


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
    """Returns the prefix of the small checkpoint of what only worker `worker` has.

    Args:
      name: The checkpoint's name.
      worker: The worker's index, of
      workers: so many.
      version: Tells several of one name apart, of which one is about to replace the other.
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
    """Returns what the prefix of a worker's own checkpoint says, or None if it is none."""
    match = _WORKER_PREFIX.fullmatch(prefix)
    if not match:
        return None
    parsed = WorkerPrefix(match[1], int(match[2]), int(match[3]), int(match[4] or 0))
    known = parsed.worker < parsed.workers and worker_prefix(*parsed) == prefix
    return parsed if known else None


# --- Saves in progress --------------------------------------------------------------------------


class Attempt(NamedTuple):
    """An attempt at a save: `sequence` counts those of one epoch, `token` is chance."""

    epoch: int
    sequence: int
    token: str


def attempt_id(epoch: int, sequence: int, token: str) -> str:
    """Returns the id of an attempt, e.g. "00000007-000012-a1b2c3d4". Ids sort by age.

    Args:
      epoch: The chief's epoch; readable from the id, so that a later chief knows what is stale.
      sequence: Counts the attempts of the epoch.
      token: Lower-case letters and digits that no other attempt has.
    """
    return f"{epoch:08d}-{sequence:06d}-{token}"


def parse_attempt_id(text: str) -> Attempt | None:
    """Returns what an attempt's id says, or None if `text` is not one."""
    match = _ATTEMPT_ID.fullmatch(text)
    if not match:
        return None
    parsed = Attempt(int(match[1]), int(match[2]), match[3])
    return parsed if attempt_id(*parsed) == text else None


class Pending(NamedTuple):
    """A pending folder: its name, the name of the checkpoint to be, and the attempt."""

    folder: str
    checkpoint: str
    attempt: Attempt


def pending_name(name: str, attempt: str) -> str:
    """Returns the name of the folder in which the attempt with id `attempt` makes `name`."""
    return f"{name}.pending-{attempt}"


def parse_pending_name(folder: str) -> Pending | None:
    """Returns what the name of a pending folder says, or None if `folder` is not one."""
    match = _PENDING.fullmatch(folder)
    attempt = parse_attempt_id(match[2]) if match else None
    return Pending(folder, match[1], attempt) if match and attempt else None


def shard_stem(worker: int, workers: int) -> str:
    """Returns how the names of all that worker `worker` writes into a pending folder begin."""
    return f"shard-{worker:05d}-of-{workers:05d}"


def own_stem(worker: int, workers: int) -> str:
    """Returns what is called there, in a pending folder, what only worker `worker` has."""
    return shard_stem(worker, workers) + ".own"


# --- The private folder -------------------------------------------------------------------------


def epoch_name(epoch: int) -> str:
    """Returns the name of the file of `epoch` in the `epochs_folder`."""
    return f"{epoch:08d}.json"


def parse_epoch_name(file: str) -> int | None:
    """Returns the epoch of a file in the `epochs_folder`, or None if `file` is not of one."""
    match = _EPOCH_FILE.fullmatch(file)
    return int(match[1]) if match and epoch_name(int(match[1])) == file else None


def note_name(name: str) -> str:
    """Returns the name of the note on checkpoint `name`, that it is damaged or was verified."""
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


# --- Listings -----------------------------------------------------------------------------------


class CheckpointFiles(NamedTuple):
    """The files of one checkpoint that a directory listing shows.

    Attributes:
      name: The checkpoint's name.
      has_index: Whether its index is there.
      has_manifest: Whether its manifest is there, which makes it committed.
      data: Names of its data files, sorted; those of an older version of it may be among them.
      workers: Names of the files of the workers' own checkpoints, sorted.
    """

    name: str
    has_index: bool
    has_manifest: bool
    data: tuple[str, ...]
    workers: tuple[str, ...]


class Listing(NamedTuple):
    """A directory listing, understood.

    Attributes:
      checkpoints: The checkpoints by name, in the order of name and number ("ckpt-9", "ckpt-10").
        One may be incomplete: a manifest without an index, data files alone.
      pending: Pending folders, by age.
      others: All other names, sorted.
    """

    checkpoints: dict[str, CheckpointFiles]
    pending: tuple[Pending, ...]
    others: tuple[str, ...]


def classify(names: Iterable[str]) -> Listing:
    """Sorts the names in a checkpoint directory by what they are."""
    found: dict[str, list[str]] = {}
    pending: list[Pending] = []
    others: list[str] = []
    for file in sorted(names):
        plain = "/" not in file
        owner = _owner(file) if plain else None
        save = parse_pending_name(file) if plain else None
        if owner:
            found.setdefault(owner, []).append(file)
        elif save:
            pending.append(save)
        else:
            others.append(file)
    pending.sort(key=lambda save: save.attempt)
    checkpoints = {name: _gather(name, found[name]) for name in sorted(found, key=_natural_order)}
    return Listing(checkpoints, tuple(pending), tuple(others))


def parse_worker_file(file: str) -> WorkerPrefix | None:
    """Returns what the name of a file of a worker's own checkpoint says, or None if it is none."""
    prefix = _bundle_prefix(file)
    return parse_worker_prefix(prefix) if prefix else None


def _owner(file: str) -> str | None:
    """Returns the name of the checkpoint that `file` belongs to, or None."""
    if len(file) > len(_MANIFEST_SUFFIX) and file.endswith(_MANIFEST_SUFFIX):
        return file[: -len(_MANIFEST_SUFFIX)]
    prefix = _bundle_prefix(file)
    worker = parse_worker_prefix(prefix) if prefix else None
    return worker.checkpoint if worker else prefix


def _bundle_prefix(file: str) -> str | None:
    if len(file) > len(_INDEX_SUFFIX) and file.endswith(_INDEX_SUFFIX):
        return file[: -len(_INDEX_SUFFIX)]
    data = parse_data_name(file)
    return data.checkpoint if data else None


def _gather(name: str, files: list[str]) -> CheckpointFiles:
    special = (index_name(name), manifest_name(name))
    parsed = {file: parse_data_name(file) for file in files if file not in special}
    data = tuple(file for file, said in parsed.items() if said and said.checkpoint == name)
    workers = tuple(file for file in parsed if file not in data)
    return CheckpointFiles(name, special[0] in files, special[1] in files, data, workers)


def _natural_order(name: str) -> tuple[str, int]:
    prefix, number = split_number(name)
    return prefix, -1 if number is None else number


# --- Trust --------------------------------------------------------------------------------------


def safe_name(name: str, checkpoint: str | None = None) -> str:
    """Returns `name` if it is the name of a file directly in the directory.

    For names that come out of a manifest: reading, and above all deleting, must never leave the
    directory, whatever somebody wrote there.

    Args:
      name: The file name.
      checkpoint: If given, `name` must also be one of that checkpoint's: begin with "ckpt-12." or,
        as the files of the state's own savers, with "ckpt-12-", and be no file of another, and no
        pending folder.

    Raises:
      ManifestError: `name` is empty, absolute, has a separator, a drive letter, a NUL or half a
        surrogate pair, is "." or "..", or belongs to something else.
    """
    why = _refusal(name)
    if not why and checkpoint is not None and not _is_file_of(name, checkpoint):
        why = f"it is not one of the files of {checkpoint}"
    if why:
        raise ManifestError(f"The manifest names the file {name!r}, which is not safe: {why}.")
    return name


def safe_checkpoint(name: str) -> str:
    """Returns `name` if files of a checkpoint of that name are directly in the directory.

    Raises:
      ManifestError: They are not (see `safe_name`), or `name` is no Unicode, as a name that has
        passed `check_checkpoint_name` is: then TensorFlow's `checkpoint` file could not hold it.
    """
    if not _is_unicode(safe_name(name)):
        raise ManifestError(f"The manifest is of {name!r}, which is not valid Unicode.")
    return name


def _is_file_of(file: str, checkpoint: str) -> bool:
    if not file.startswith((f"{checkpoint}.", f"{checkpoint}-")) or parse_pending_name(file):
        return False
    owner = _owner(file)  # "ckpt-1" may stand beside "ckpt-1-2", of another checkpoint_name
    return owner is None or owner == checkpoint or split_number(owner)[1] is None


def _refusal(name: object) -> str:
    """Returns why `name` is not the name of a file directly in a directory, or ""."""
    if not isinstance(name, str):
        return "it is not text"
    if not name or name in (".", ".."):
        return "it names no file"
    if "/" in name or "\\" in name:
        return "it has a path separator"
    if "\x00" in name:
        return "it has a NUL character"
    if not _is_unicode(name, errors="surrogateescape"):  # as `os.listdir` gives other bytes
        return "it has characters that no file name can have"
    return "it begins with a drive letter" if _DRIVE.match(name) else ""


def _is_unicode(name: str, errors: str = "strict") -> bool:
    try:
        name.encode(errors=errors)
    except UnicodeEncodeError:
        return False
    return True
