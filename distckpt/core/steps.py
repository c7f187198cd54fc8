"""The steps of a save: the actions of `core.protocol`'s machines, and the events they wait for."""

from __future__ import annotations

import dataclasses

from distckpt.core.messages import Opening, Outcome, Refusal, Report, Roll
from distckpt.errors import Failure

# --- Actions ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SendReady:
    """Any: publish that it has come, with the fingerprint of its plan. No event."""

    fingerprint: str


@dataclasses.dataclass(frozen=True)
class AwaitReady:
    """Chief: wait until any of `workers` has come, for its refusal, a death, or the deadline."""

    workers: frozenset[int]


@dataclasses.dataclass(frozen=True)
class AnnounceRoll:
    """Publish `roll`, and see which is in force: the first that anybody has published.

    The chief does it when all have come; a worker, when it has given up waiting for that.
    """

    roll: Roll


@dataclasses.dataclass(frozen=True)
class ReadTogether:
    """Any, on the training thread: read what needs a collective."""


@dataclasses.dataclass(frozen=True)
class Open:
    """Chief: take or confirm the epoch, make the pending folder with its probe."""


@dataclasses.dataclass(frozen=True)
class AnnounceOpening:
    """Chief: publish `opening`. No event."""

    opening: Opening


@dataclasses.dataclass(frozen=True)
class AwaitOpening:
    """Worker: wait for the chief's opening, or its roll (if `roll`), or its refusal to open."""

    roll: bool


@dataclasses.dataclass(frozen=True)
class Write:
    """Any: check that the probe is visible, write the own share, flush it."""

    opening: Opening


@dataclasses.dataclass(frozen=True)
class SendAnswer:
    """Worker: publish `answer` for the chief. No event."""

    answer: Report | Refusal


@dataclasses.dataclass(frozen=True)
class AwaitAnswer:
    """Chief: wait for the answer of any of `workers`, for a death, or for the deadline."""

    workers: frozenset[int]


@dataclasses.dataclass(frozen=True)
class Merge:
    """Chief: merge the shards of `reports` (by worker) into one checkpoint, still pending."""

    reports: tuple[Report, ...]


@dataclasses.dataclass(frozen=True)
class Commit:
    """Chief: check the epoch, publish the manifest, then the `checkpoint` file."""

    reports: tuple[Report, ...]


@dataclasses.dataclass(frozen=True)
class Prune:
    """Chief: let retention delete, when all have been told. Cannot fail the save."""


@dataclasses.dataclass(frozen=True)
class Discard:
    """Any: remove what this attempt has written."""


@dataclasses.dataclass(frozen=True)
class Tell:
    """Chief: publish how it ended. No event. `failure` is None after a commit.

    A `warning` is for all to log.
    """

    failure: Failure | None
    warning: str = ""


@dataclasses.dataclass(frozen=True)
class AwaitOutcome:
    """Worker: wait for the chief's word."""


@dataclasses.dataclass(frozen=True)
class Finish:
    """Any: return the path (`failure` is None) or raise. The last action."""

    failure: Failure | None


Action = (
    SendReady
    | AwaitReady
    | AnnounceRoll
    | ReadTogether
    | Open
    | AnnounceOpening
    | AwaitOpening
    | Write
    | SendAnswer
    | AwaitAnswer
    | Merge
    | Commit
    | Prune
    | Discard
    | Tell
    | AwaitOutcome
    | Finish
)

# --- Events -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Ready:
    """A worker has come to the save."""

    worker: int
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Called:
    """The roll in force has arrived."""

    roll: Roll


@dataclasses.dataclass(frozen=True)
class Read:
    """What needs a collective has been read."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """The pending folder is there (chief), or the chief's opening has arrived (worker)."""

    opening: Opening


@dataclasses.dataclass(frozen=True)
class Written:
    """The own shard is written and flushed."""

    report: Report


@dataclasses.dataclass(frozen=True)
class Answered:
    """A worker's answer has arrived at the chief."""

    answer: Report | Refusal


@dataclasses.dataclass(frozen=True)
class Merged:
    """The shards are merged and flushed, still in the pending folder."""


@dataclasses.dataclass(frozen=True)
class Committed:
    """The manifest is in place."""


@dataclasses.dataclass(frozen=True)
class Pruned:
    """Retention has done what it could."""


@dataclasses.dataclass(frozen=True)
class Failed:
    """The action failed here."""

    failure: Failure


@dataclasses.dataclass(frozen=True)
class Lost:
    """A worker that is waited for is dead."""

    failure: Failure


@dataclasses.dataclass(frozen=True)
class TimedOut:
    """The deadline has passed; the text names who is missing."""

    failure: Failure


@dataclasses.dataclass(frozen=True)
class Told:
    """The chief's word has arrived at a worker."""

    outcome: Outcome


Event = (
    Ready
    | Called
    | Read
    | Opened
    | Written
    | Answered
    | Merged
    | Committed
    | Pruned
    | Failed
    | Lost
    | TimedOut
    | Told
)
