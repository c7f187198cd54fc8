"""The errors of a process that no longer owns its directory."""

from __future__ import annotations

from distckpt.errors import (
    DirectoryClearedError,
    DirectoryInUseError,
    SaveFailedError,
    SupersededError,
)
from distckpt.ownership.owner_record import Owner
from distckpt.ownership.seen_owner import SeenOwner
from distckpt.runtime import host


def superseded(
    directory: str, by: Owner, term: int | None, seen: SeenOwner | None
) -> SupersededError:
    """Returns the error for a process whose directory another one has taken over.

    Args:
      directory: The directory's path.
      by: The other process.
      term: The term of this process; None if it has none.
      seen: The owner when this process restored, if its first save is refused.
    """
    if seen is not None:
        text = (
            f"{directory} has been taken over by {_other(by)} {seen}, so this process "
            f"({_me(term)}) may not continue from the newest checkpoint there. Nothing was saved. "
            "Restart this job: it continues from the newest checkpoint. If both should run, give "
            "each its own directory."
        )
    elif by.is_command:
        text = (
            f"{directory} has been taken over by {_other(by)}. This process ({_me(term)}) no "
            "longer commits or deletes there. Restart this job: it continues from the newest "
            "checkpoint."
        )
    else:
        or_restored = ", or restored from a backup" if by.term <= (term or 0) else ""
        text = (
            f"{directory} has been taken over by {by}{or_restored}. This process ({_me(term)}) "
            "no longer commits or deletes there. If both should run, give each its own directory; "
            "otherwise stop one."
        )
    error = SupersededError(text)
    error.successor = str(by)
    return error


def cleared(directory: str, term: int | None, seen: SeenOwner | None) -> DirectoryClearedError:
    """Returns the error for a directory that nobody owns; arguments as in `superseded`."""
    if seen is not None:
        what = f"{seen}; what this process ({_me(term)}) restored is gone or elsewhere."
    else:
        what = f"while in use: what this process ({_me(term)}) saved there is gone or elsewhere."
    return DirectoryClearedError(
        f"{directory} was cleared or moved {what} Nothing was saved. If another job now uses the "
        "directory, stop this one; otherwise save again, which takes the directory again."
    )


def taken_by_a_neighbour(directory: str) -> SaveFailedError:
    """Returns the error for a manager whose term another manager of this process has replaced."""
    return SaveFailedError(
        f"Another manager of this process has taken {directory} again meanwhile; nothing was "
        "saved. Save again."
    )


def just_taken(directory: str, by: Owner | None) -> DirectoryInUseError:
    """Returns the error for a command that another process has overtaken."""
    return DirectoryInUseError(f"{directory} has just been taken by {by}; nothing was changed.")


def _other(by: Owner) -> str:
    return f"a distckpt command on {by}" if by.is_command else str(by)


def _me(term: int | None) -> str:
    return f"{host.name()}, pid {host.pid()}" + (f", term {term}" if term is not None else "")
