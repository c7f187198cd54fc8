"""Says what a save that has not been committed is, and how far it has come. Only reads."""

from __future__ import annotations

from distckpt.cli import output
from distckpt.core import attempts
from distckpt.storage.base import Storage


def describe(storage: Storage, directory: str, name: str) -> str:
    """Returns a sentence on each unfinished save of checkpoint `name`; "" if there is none."""
    from distckpt.core import listings
    from distckpt.inspection import save_watch
    from distckpt.ownership import owner_record

    owner = owner_record.find(storage, directory)
    told = {save.attempt: save for save in save_watch.look(storage, directory)}
    sentences = []
    for pending in listings.classify(storage.list(directory)).pending:
        save = told.get(attempts.attempt_id(*pending.attempt))
        if pending.checkpoint != name or (save is None or save.phase == save_watch.DELETING):
            continue
        runs = owner is not None and owner.may_still_save(pending.attempt.term)
        what = "is being saved" if runs else "was not saved completely, by a job that has ended"
        done = "; ".join(
            f"worker {one.worker}: {one.phase}, {output.size(one.bytes)}" for one in save.workers
        )
        more = "" if runs else " `distckpt gc` removes what is left of it."
        sentences.append(
            f"{name} {what} (term {pending.attempt.term}): {save.phase}, "
            f"{output.size(save.bytes)} so far{f' ({done})' if done else ''}.{more}"
        )
    return " ".join(sentences)


def parse_path(path: str) -> tuple[str, str] | None:
    """Returns directory and checkpoint of the path of a pending folder; None of another path."""
    directory, _, folder = path.rstrip("/").rpartition("/")
    pending = attempts.parse_pending_name(folder)
    return (directory, pending.checkpoint) if pending is not None else None
