"""The actions of the save machines, and the events that they wait for."""

from __future__ import annotations

import dataclasses

from distckpt.core.protocol.messages import Opening, Outcome, Refusal, Rendezvous, Report
from distckpt.errors import Failure

# --- Actions ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SendReady:
    """Any: publish that this worker has come, with the fingerprint of its plan. No event."""

    fingerprint: str


@dataclasses.dataclass(frozen=True)
class AwaitReady:
    """Chief: wait until any of `workers` comes, refuses or dies, or until the deadline."""

    workers: frozenset[int]


@dataclasses.dataclass(frozen=True)
class AnnounceRendezvous:
    """Publish `rendezvous`, and find out which is in force: the first that any worker published.

    The chief does this when all have come; another worker, when it gives up waiting for that.
    """

    rendezvous: Rendezvous


@dataclasses.dataclass(frozen=True)
class ReadTogether:
    """Any, on the training thread: read what needs a collective."""


@dataclasses.dataclass(frozen=True)
class Open:
    """Chief: take or confirm the term, make the pending folder with its probe."""


@dataclasses.dataclass(frozen=True)
class AnnounceOpening:
    """Chief: publish `opening`. No event."""

    opening: Opening


@dataclasses.dataclass(frozen=True)
class AwaitOpening:
    """Worker: wait for the chief's opening or refusal; also for its rendezvous, if `rendezvous`."""

    rendezvous: bool


@dataclasses.dataclass(frozen=True)
class Write:
    """Any: check that the probe is visible, write this worker's share, flush it."""

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
    """Chief: check the term, publish the manifest, then the `checkpoint` file."""

    reports: tuple[Report, ...]


@dataclasses.dataclass(frozen=True)
class Prune:
    """Chief: let retention delete after all have been told. Cannot fail the save."""


@dataclasses.dataclass(frozen=True)
class Discard:
    """Any: remove what this attempt has written."""


@dataclasses.dataclass(frozen=True)
class Tell:
    """Chief: publish how the save ended. No event. `failure` is None after a commit.

    All workers log `warning`.
    """

    failure: Failure | None
    warning: str = ""


@dataclasses.dataclass(frozen=True)
class AwaitOutcome:
    """Worker: wait for the chief's outcome."""


@dataclasses.dataclass(frozen=True)
class Finish:
    """Any: return the path (`failure` is None) or raise. The last action."""

    failure: Failure | None


Action = (
    SendReady
    | AwaitReady
    | AnnounceRendezvous
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
    """The rendezvous in force has arrived."""

    rendezvous: Rendezvous


@dataclasses.dataclass(frozen=True)
class Read:
    """What needs a collective has been read."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """The pending folder exists (chief), or the chief's opening has arrived (worker)."""

    opening: Opening


@dataclasses.dataclass(frozen=True)
class Written:
    """This worker's shard is written and flushed."""

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
    """Retention has deleted what it could."""


@dataclasses.dataclass(frozen=True)
class Failed:
    """The action failed on this worker."""

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
    """The chief's outcome has arrived at a worker."""

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


class ProtocolError(AssertionError):
    """A driver fed an event that the machine does not wait for: a bug."""
