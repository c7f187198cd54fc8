"""Publishes refusals so that the chief finds them at once, however many workers there are.

The chief of a large job does not look at the answers of all workers all the time. So each refusal
is published twice: as the worker's own answer, and under a key that all workers share. The first
one there is enough, unless the chief may ignore it because of its moment. Then the next one, which
is of another moment, is published under the next shared key.
"""

from __future__ import annotations

import logging

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import messages
from distckpt.core.protocol.messages import Refusal
from distckpt.errors import DistckptError
from distckpt.messaging.keys import Keys

_log = logging.getLogger("distckpt")
# Refusals of so many different moments are shared; later ones are found in the worker's answer.
MOST = 16
# How long to wait for what is certainly published, unless the chief has just forgotten it.
_THERE = 1.0


def publish(coordinator: Coordinator, keys: Keys, turn: int, refusal: Refusal) -> list[str]:
    """Publishes the refusal of this worker, which is not the chief.

    Args:
      coordinator: The job.
      keys: The keys of the call.
      turn: How many answers this worker has given to the call before.
      refusal: The refusal.

    Returns:
      The keys under which it is published.

    Raises:
      DistckptError: It could not be published at all; see `Coordinator.publish`.
    """
    text = messages.to_json(refusal)
    own = keys.answer(coordinator.index, turn)
    coordinator.publish(own, text)
    published = [own]
    try:
        answer = coordinator.fetch([own], _THERE)
        if answer is not None and answer[1] != text:
            return published  # it has answered before: the chief goes by that
        for shared in map(keys.refusal, range(MOST)):
            coordinator.publish(shared, text)
            published.append(shared)
            found = coordinator.fetch([shared], _THERE)
            if found is None or _stands_for(found[1], refusal):
                break
    except DistckptError as error:  # then the chief finds the worker's own answer
        _log.debug("A refusal was published only once: %s", error)
    return published


def _stands_for(text: str, refusal: Refusal) -> bool:
    """Returns whether the chief does with the refusal in `text` what it does with `refusal`."""
    found = messages.answer_from_json(text)
    assert isinstance(found, Refusal)
    return found.moment in (None, refusal.moment)
