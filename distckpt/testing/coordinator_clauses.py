"""The clauses of the contract of coordination adapters.

A clause is a function that *every* worker of a job of three runs at the same time, like a training
program. So the same clauses test adapters that work in threads, with a subclass of
`coordinator_contract.CoordinatorContract`, and adapters that need real processes, which run
`CLAUSES` and `DEATH_CLAUSES` in their own program.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from distckpt import errors
from distckpt.coordination.base import Coordinator
from distckpt.testing.threads import run_in_threads

WORKERS = 3

# Seconds. After `PATIENCE` a clause has failed; `SOON` is ample for immediate events.
PATIENCE = 40.0
SOON = 5.0

Clause = Callable[[Coordinator, str], None]
DeathClause = Callable[[Coordinator, str, Callable[[], NoReturn]], None]


def meet(me: Coordinator, place: str, workers: Sequence[int] = range(WORKERS)) -> None:
    """Returns when all `workers` have come to `place`: a barrier made of keys."""
    me.publish(f"{place}/met/{me.index}", "here")
    for worker in workers:
        found = me.fetch([f"{place}/met/{worker}"], PATIENCE)
        assert found is not None, f"{me.name(worker)} never came to {place}"


def get(me: Coordinator, key: str) -> str:
    """Returns the value of `key`, which must come."""
    found = me.fetch([key], PATIENCE)
    assert found is not None, f"{key} never came"
    assert found[0] == key
    return found[1]


# --- Clauses: the first argument is this worker, the second is the prefix of its keys -------------


def every_worker_knows_its_place(me: Coordinator, key: str) -> None:
    """Index, count, chief and names are consistent."""
    assert me.count == WORKERS
    assert me.is_chief == (me.index == 0)
    assert len({me.name(worker) for worker in range(me.count)}) == WORKERS
    me.publish(f"{key}/name/{me.index}", me.name(me.index))
    names = [get(me, f"{key}/name/{worker}") for worker in range(WORKERS)]
    assert names == [me.name(worker) for worker in range(WORKERS)]


def what_one_publishes_all_find(me: Coordinator, key: str) -> None:
    """A published value reaches all workers, including the publisher."""
    me.publish(f"{key}/{me.index}", f"from {me.index}")
    assert [get(me, f"{key}/{w}") for w in range(WORKERS)] == ["from 0", "from 1", "from 2"]


def what_is_there_is_found_without_time_to_wait(me: Coordinator, key: str) -> None:
    """A fetch with a timeout of 0 finds keys that were published before."""
    me.publish(f"{key}/{me.index}", "value")
    meet(me, key)
    for worker in range(WORKERS):
        assert me.fetch([f"{key}/{worker}"], 0) == (f"{key}/{worker}", "value")


def a_fetch_in_vain_ends_with_its_timeout(me: Coordinator, key: str) -> None:
    """A fetch of absent keys is not an error, and takes its timeout, but not much more."""
    for timeout in (0.0, 0.3, 0.0, 1.0):
        began = time.monotonic()
        assert me.fetch([f"{key}/a", f"{key}/b"], timeout) is None
        assert timeout <= time.monotonic() - began < timeout + 1.0


def a_waiting_fetch_ends_when_the_key_is_published(me: Coordinator, key: str) -> None:
    """A fetch returns as soon as a key is published, not at its timeout."""
    meet(me, key)
    began = time.monotonic()
    if me.is_chief:
        time.sleep(0.5)
        me.publish(f"{key}/late", "value")
    assert get(me, f"{key}/late") == "value"
    assert time.monotonic() - began < SOON


def of_several_keys_the_one_that_is_there_is_found(me: Coordinator, key: str) -> None:
    """The position of the key in the list and the time of its publication do not matter."""
    keys = [f"{key}/{letter}" for letter in "abcde"]
    if me.index == 1:
        me.publish(keys[3], "value")
    assert me.fetch(keys, PATIENCE) == (keys[3], "value")
    meet(me, key)
    if me.index == 2:
        time.sleep(0.3)
        me.publish(keys[4], "later")
    assert me.fetch([keys[0], keys[4]], PATIENCE) == (keys[4], "later")


def of_several_keys_that_are_there_the_first_is_found(me: Coordinator, key: str) -> None:
    """The order of the list counts, not the order of publication."""
    keys = [f"{key}/{letter}" for letter in "cab"]
    if me.is_chief:
        for published in sorted(keys):
            me.publish(published, "value")
    meet(me, key)
    assert me.fetch(keys, SOON) == (keys[0], "value")
    assert me.fetch(keys[1:], 0) == (keys[1], "value")


def many_keys_are_found_in_a_few_calls(me: Coordinator, key: str) -> None:
    """`fetch_all` returns what is published of its keys, and never a key that is not."""
    me.publish(f"{key}/{me.index}", f"from {me.index}")
    never = [f"{key}/never/{n}" for n in range(9)]
    expected = {f"{key}/{worker}": f"from {worker}" for worker in range(WORKERS)}
    found: dict[str, str] = {}
    while len(found) < WORKERS:
        some = me.fetch_all([*never, *sorted(expected.keys() - found.keys())], PATIENCE)
        assert some, "nothing was found in time"
        found |= some
    assert found == expected
    assert me.fetch_all(never, 0.1) == []
    meet(me, key)
    me.forget(never)


def a_key_keeps_its_first_value(me: Coordinator, key: str) -> None:
    """Publishing again is not an error and changes nothing, and all workers see the same value."""
    me.publish(f"{key}/raced", f"from {me.index}")
    me.publish(f"{key}/raced", f"again from {me.index}")
    me.publish(f"{key}/seen/{me.index}", get(me, f"{key}/raced"))
    seen = {get(me, f"{key}/seen/{worker}") for worker in range(WORKERS)}
    assert len(seen) == 1
    assert seen <= {f"from {worker}" for worker in range(WORKERS)}


def a_value_stays_and_can_be_fetched_again(me: Coordinator, key: str) -> None:
    """Fetching does not remove a value."""
    if me.is_chief:
        me.publish(f"{key}/a", "value")
    for _ in range(5):
        assert get(me, f"{key}/a") == "value"


def a_value_may_be_any_text(me: Coordinator, key: str) -> None:
    """Empty, non-ASCII and multi-line values are returned unchanged."""
    texts = ["", " ", "\n", "a\r\nb\t", "é ☃ 🙂", '{"json": [1, null]}', "=", "-", "/", "%s%00\\0"]
    for number, text in enumerate(texts):
        if me.index == number % WORKERS:
            me.publish(f"{key}/{number}", text)
    assert [get(me, f"{key}/{number}") for number in range(len(texts))] == texts


def a_value_may_be_large(me: Coordinator, key: str) -> None:
    """Each worker publishes 8 MiB."""
    me.publish(f"{key}/{me.index}", f"{me.index}" * (8 << 20))
    for worker in range(WORKERS):
        value = get(me, f"{key}/{worker}")
        assert len(value) == 8 << 20
        assert set(value) == {str(worker)}


def keys_that_begin_alike_are_different_keys(me: Coordinator, key: str) -> None:
    """A key is neither a folder nor a prefix of another."""
    names = ["a", "a/b", "a/b/c", "ab", "a.b", "a-b", "a_b", "A", "a/.", "a/..", "a..b", "0" * 100]
    if me.is_chief:
        for name in names:
            me.publish(f"{key}/{name}", f"value of {name}")
    assert [get(me, f"{key}/{name}") for name in names] == [f"value of {n}" for n in names]
    assert me.fetch([f"{key}/a/c", key, f"{key}/b"], 0) is None


def forgetting_drops_the_keys_named_and_no_others(me: Coordinator, key: str) -> None:
    """A forgotten key is deleted for all workers; similar keys are kept."""
    names = ["a", "a/b", "ab", "b"]
    if me.is_chief:
        for name in names:
            me.publish(f"{key}/{name}", "value")
    meet(me, f"{key}/published")
    if me.index == 1:
        me.forget([f"{key}/a", f"{key}/b"])
    meet(me, f"{key}/forgotten")
    assert me.fetch([f"{key}/a", f"{key}/b"], 0) is None
    assert get(me, f"{key}/a/b") == get(me, f"{key}/ab") == "value"


def forgetting_what_is_unknown_is_harmless(me: Coordinator, key: str) -> None:
    """Forgetting absent keys, repeatedly, or no keys at all, is not an error."""
    me.forget([])
    for _ in range(2):
        me.forget([f"{key}/never", f"{key}/never/ever"])
    meet(me, key)


def a_wait_outlives_the_forgetting_of_its_key(me: Coordinator, key: str) -> None:
    """To a waiting worker, a forgotten key is like an absent one."""
    if me.is_chief:
        meet(me, key)
        time.sleep(0.2)
        me.forget([f"{key}/a"])
        me.publish(f"{key}/a", "value")
    else:
        threading.Timer(0.1, meet, [me, key]).start()
    assert get(me, f"{key}/a") == "value"


def many_threads_may_call_at_once(me: Coordinator, key: str) -> None:
    """Eight threads of each worker publish, and wait for the other workers' values."""

    def converse(thread: int) -> None:
        for turn in range(5):
            me.publish(f"{key}/{thread}/{turn}/{me.index}", f"{thread} {turn}")
            for worker in range(WORKERS):
                assert get(me, f"{key}/{thread}/{turn}/{worker}") == f"{thread} {turn}"
            assert get(me, f"{key}/0/{turn}/0") == f"0 {turn}"

    run_in_threads(converse, range(8))


def many_short_waits_do_not_miss_the_key(me: Coordinator, key: str) -> None:
    """Polling repeatedly, as the protocol does, finds what one long wait would find."""
    if me.is_chief:
        time.sleep(0.5)
        me.publish(f"{key}/a", "value")
    deadline = time.monotonic() + PATIENCE
    while (found := me.fetch([f"{key}/never", f"{key}/a"], 0.01)) is None:
        assert time.monotonic() < deadline
    assert found == (f"{key}/a", "value")


def nobody_is_lost_while_all_live(me: Coordinator, key: str) -> None:
    """No death is reported, and the call returns quickly."""
    began = time.monotonic()
    assert me.lost() == {}
    assert me.chief_lost() is None
    assert time.monotonic() - began < SOON
    meet(me, key)


def who_is_there_has_joined(me: Coordinator, key: str) -> None:
    """A worker that has published has joined."""
    meet(me, key)
    deadline = time.monotonic() + PATIENCE
    while not all(me.has_joined(worker) for worker in range(WORKERS)):
        assert time.monotonic() < deadline, "a worker that is there counts as not joined"
        time.sleep(0.02)


CLAUSES: tuple[Clause, ...] = (
    every_worker_knows_its_place,
    what_one_publishes_all_find,
    what_is_there_is_found_without_time_to_wait,
    a_fetch_in_vain_ends_with_its_timeout,
    a_waiting_fetch_ends_when_the_key_is_published,
    of_several_keys_the_one_that_is_there_is_found,
    of_several_keys_that_are_there_the_first_is_found,
    many_keys_are_found_in_a_few_calls,
    a_key_keeps_its_first_value,
    a_value_stays_and_can_be_fetched_again,
    a_value_may_be_any_text,
    a_value_may_be_large,
    keys_that_begin_alike_are_different_keys,
    forgetting_drops_the_keys_named_and_no_others,
    forgetting_what_is_unknown_is_harmless,
    a_wait_outlives_the_forgetting_of_its_key,
    many_threads_may_call_at_once,
    many_short_waits_do_not_miss_the_key,
    nobody_is_lost_while_all_live,
    who_is_there_has_joined,
)


# --- Clauses on death: `die` ends this worker as SIGKILL would ------------------------------------


def a_dead_worker_is_reported_and_the_others_go_on(
    me: Coordinator, key: str, die: Callable[[], NoReturn]
) -> None:
    """The last worker dies; the others learn of it, and the store still works."""
    meet(me, f"{key}/before")
    if me.index == 2:
        die()
    assert_reported(me, 2)
    assert set(me.lost()) == {2}
    me.publish(f"{key}/{me.index}", "alive")
    assert get(me, f"{key}/0") == get(me, f"{key}/1") == "alive"


def a_dead_chief_is_reported_and_nobody_waits_for_it(
    me: Coordinator, key: str, die: Callable[[], NoReturn]
) -> None:
    """The chief dies; all calls still end soon, either well or with an error that names it."""
    others = [worker for worker in range(1, WORKERS) if worker not in me.lost()]
    meet(me, f"{key}/before", [0, *others])
    if me.is_chief:
        meet(me, f"{key}/last", [0, *others])
        die()
    with contextlib.suppress(errors.WorkerLostError):  # the chief may die before it answers
        me.publish(f"{key}/last/met/{me.index}", "here")
    assert_reported(me, 0)
    assert_chief_reported(me)
    calls: list[Callable[[], object]] = [
        lambda: me.publish(f"{key}/{me.index}", "alive"),
        lambda: me.fetch([f"{key}/never"], 0.1),
        lambda: me.forget([f"{key}/never"]),
    ]
    for call in calls:
        began = time.monotonic()
        try:
            call()
        except errors.WorkerLostError as error:
            text = str(error)
            assert text.startswith(me.name(0)), text
            assert_readable(text)
        assert time.monotonic() - began < SOON


DEATH_CLAUSES: tuple[DeathClause, ...] = (
    a_dead_worker_is_reported_and_the_others_go_on,
    a_dead_chief_is_reported_and_nobody_waits_for_it,
)


def assert_reported(me: Coordinator, worker: int) -> None:
    """Checks that the death of `worker` is reported soon, with a reason."""
    deadline = time.monotonic() + PATIENCE
    while worker not in me.lost():
        assert time.monotonic() < deadline, f"the death of {me.name(worker)} was not noticed"
        time.sleep(0.05)
    assert_readable(me.lost()[worker])


def assert_chief_reported(me: Coordinator) -> None:
    """Checks that a worker that asks only about the chief learns of its death, too."""
    deadline = time.monotonic() + PATIENCE
    while (reason := me.chief_lost()) is None:
        assert time.monotonic() < deadline, "the death of the chief was not noticed"
        time.sleep(0.05)
    assert_readable(reason)


def assert_readable(text: str) -> None:
    """Checks that a message is one readable line."""
    assert text.strip() == text
    assert 5 < len(text) < 200, text
    assert "\n" not in text
    assert "rpc" not in text.lower(), text
