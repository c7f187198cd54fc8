"""The ownerships of this process: all its managers share the terms that it has taken."""

from __future__ import annotations

import atexit

from distckpt.ownership.fencing import Ownership
from distckpt.ownership.held_terms import HeldTerms
from distckpt.storage.base import Storage

_terms = HeldTerms(at_exit=atexit.register)


def ownership_of(storage: Storage, directory: str, *, durable: bool) -> Ownership:
    """Returns a manager's ownership of `directory`, an absolute path or URL, in this process."""
    return Ownership(storage, directory, durable=durable, held_terms=_terms)
