"""Pins and leases: whatever is held is not deleted, however close the two come to each other."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest

from distckpt.core.pins_and_leases import Lease, Pin, parse, render
from distckpt.directory import pinning
from distckpt.directory.holds import Holds
from distckpt.errors import ConfigurationError
from distckpt.restoring.verifier import Verifier
from distckpt.runtime import host
from distckpt.testing.faulty_storage import BEFORE, Fault, FaultyStorage, ProcessDied, Where, dies

from ..kit import lab


def pinned(chief, name, reason=""):
    return pinning.pin(chief.storage, chief.directory, Pin(name, "me@here", 1.0, reason))


def verified(directory, name):
    Verifier(lab.storage_of(directory), str(directory)).verify(name)


@pytest.fixture
def chief(tmp_path):
    chief = lab.Chief(tmp_path / "run", max_to_keep=1)
    chief.save("ckpt-1", 1)
    return chief


def lease(now, seconds=60.0, name="ckpt-1"):
    return Lease(name, "ab12", "elsewhere", 7, now, seconds)


def put(directory, hold, file):
    folder = os.path.join(directory, ".distckpt", "holds")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, file), "wb") as out:
        out.write(render(hold))


# --- Files


@pytest.mark.parametrize("hold", [Pin("ckpt-1", "me@here", 3.5, "for the paper"), lease(5.0)])
def test_a_hold_is_read_as_it_was_written(hold):
    file = "ckpt-1.pin.json" if isinstance(hold, Pin) else "ckpt-1.lease-ab12.json"
    assert parse(file, render(hold)) == hold


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"name": "ckpt-2"}', b"[" * 100_000])
def test_a_damaged_pin_still_holds_and_a_damaged_lease_does_not(data):
    assert parse("ckpt-1.pin.json", data) == Pin("ckpt-1")
    assert parse("ckpt-1.lease-ab12.json", data) is None
    assert parse("notes.txt", data) is None


def test_a_lease_runs_out_and_is_not_believed_if_it_comes_from_the_future():
    assert lease(1000.0).holds(1000.0)
    assert lease(1000.0).holds(1060.0)
    assert lease(1000.0).holds(940.0)
    assert not lease(1000.0).holds(1061.0)
    assert not lease(1000.0).holds(939.0)


# --- Retention


def test_what_is_pinned_stays_and_stays_on_the_list(chief):
    assert pinned(chief, "ckpt-1", "for the paper")
    assert not pinned(chief, "ckpt-1")
    for number in (2, 3):
        chief.save(f"ckpt-{number}", number)
    assert [k.name for k in chief.managed.active] == ["ckpt-1", "ckpt-3"]
    verified(chief.directory, "ckpt-1")
    assert Holds(chief.storage, chief.directory).held() == {"ckpt-1": "pinned (for the paper)"}
    assert pinning.unpin(chief.storage, chief.directory, "ckpt-1")
    assert not pinning.unpin(chief.storage, chief.directory, "ckpt-1")
    chief.save("ckpt-4", 4)
    assert [k.name for k in chief.managed.active] == ["ckpt-4"]


def test_a_lease_keeps_a_checkpoint_until_it_runs_out(chief):
    put(chief.directory, lease(host.now()), "ckpt-1.lease-ab12.json")
    chief.save("ckpt-2", 2)
    assert [k.name for k in chief.managed.active] == ["ckpt-1", "ckpt-2"]
    put(chief.directory, lease(host.now() - 61), "ckpt-1.lease-ab12.json")
    chief.save("ckpt-3", 3)
    assert [k.name for k in chief.managed.active] == ["ckpt-3"]


def test_what_is_not_there_cannot_be_held(chief):
    with pytest.raises(ConfigurationError, match="no checkpoint 'ckpt-9'"):
        pinned(chief, "ckpt-9")
    assert Holds(chief.storage, chief.directory).all() == []


def test_nothing_is_deleted_while_the_holds_cannot_be_read(chief, caplog):
    folder = os.path.join(chief.directory, ".distckpt", "holds")
    os.rmdir(folder)
    with open(folder, "w"):
        pass
    chief.save("ckpt-2", 2)
    assert [k.name for k in chief.managed.active] == ["ckpt-1", "ckpt-2"]
    assert "Nothing is deleted" in caplog.text


def test_a_leaseholder_moves_on_and_lets_go(chief):
    chief.max_to_keep = 9
    chief.save("ckpt-2", 2)
    holder = pinning.Leaseholder(chief.storage, chief.directory, 60.0)
    holds = Holds(chief.storage, chief.directory)
    holder.take("ckpt-2")
    assert set(holds.held()) == {"ckpt-2"}
    before = holds.all()
    time.sleep(0.01)
    holder.renew()
    assert holds.all()[0].renewed_at > before[0].renewed_at
    holder.release()
    assert holds.all() == []
    with pytest.raises(ConfigurationError, match="no checkpoint"):
        holder.take("ckpt-9")
    assert holds.all() == []


# --- A pin and a deletion at the same time


class Race:
    """Pins ckpt-1 just before an operation of the save that deletes it."""

    def __init__(self, folder, kind, k, m=None):
        self.directory = folder / f"{k}-{m}"
        if kind == "plain":
            lab.plain_save(str(self.directory), "ckpt-1", 1)
            lab.point_to(str(self.directory), ["ckpt-1"])
        else:
            lab.Chief(self.directory, max_to_keep=1).save("ckpt-1", 1, 2)
        self.storage = FaultyStorage(lab.storage_of(self.directory))
        self.storage.add(Fault(self._pin, Where(writing=k), BEFORE))
        if m is not None:
            self.storage.add(Fault(dies(), Where(writing=m), BEFORE))
        self.chief = lab.Chief(self.directory, self.storage, max_to_keep=1)
        self.thread = None
        self.refused = False

    def _pin(self, storage, operation):
        self.thread = threading.Thread(target=self._pin_it)
        self.thread.start()
        path = self.directory / ".distckpt" / "holds" / "ckpt-1.pin.json"
        while self.thread.is_alive() and not path.exists():
            time.sleep(0.001)
        self.thread.join(0.02)

    def _pin_it(self):
        try:
            plain = lab.storage_of(self.directory)
            pinning.pin(plain, str(self.directory), Pin("ckpt-1", "me@here"))
        except ConfigurationError:
            self.refused = True

    def run(self):
        """Returns whether the operation was reached."""
        with contextlib.suppress(ProcessDied):
            self.chief.save("ckpt-2", 2)
        if self.thread is None:
            return False
        self.thread.join()
        return True

    def check(self):
        pins = list((self.directory / ".distckpt" / "holds").glob("*.pin.json"))
        assert bool(pins) != self.refused
        if not self.refused:
            verified(self.directory, "ckpt-1")
            assert lab.number_of(self.directory, "ckpt-1") == 1


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(pinning, "PATIENCE", 0.1)
    monkeypatch.setattr(pinning, "_PAUSE", 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_a_pin_that_was_granted_holds_whenever_it_came(tmp_path, kind):
    granted, k = [], 0
    while True:
        k += 1
        race = Race(tmp_path, kind, k)
        if not race.run():
            break
        race.check()
        granted.append(not race.refused)
    assert k > 20
    assert True in granted
    assert False in granted  # so it did come too late somewhere
    assert granted == sorted(granted, reverse=True)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["ours", "plain"])
@pytest.mark.parametrize("later", [0, 1, 2, 5])
def test_a_pin_that_was_granted_holds_although_the_chief_dies(tmp_path, kind, later):
    """The successor takes the deletion back that the dead one has begun."""
    k = 0
    while True:
        k += 1
        race = Race(tmp_path, kind, k, k + later)
        if not race.run():
            break
        successor = lab.Chief(race.directory, max_to_keep=1)
        successor.save("ckpt-3", 3)
        race.check()
    assert k > 20
