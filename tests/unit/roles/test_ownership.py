from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from distckpt.core import layout
from distckpt.errors import DirectoryError, SupersededError
from distckpt.roles.owner import find
from distckpt.roles.ownership import Ownership, ownership_of
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import AFTER, Fault, FaultyStorage, Where, fails

from . import lab


def owner(directory, storage=None):
    return Ownership(storage or LocalStorage(), str(directory), durable=True)


def epochs(directory):
    return sorted(os.listdir(os.path.join(directory, ".distckpt", "epochs")))


def test_the_first_process_takes_epoch_1_and_keeps_it(tmp_path):
    first = owner(tmp_path)
    assert first.epoch is None
    assert first.take()
    assert first.epoch == 1
    assert not first.take()
    assert epochs(tmp_path) == ["00000001.json"]
    first.check()


def test_an_epoch_says_who_took_it_and_when(tmp_path):
    owner(tmp_path).take()
    who = json.loads((tmp_path / ".distckpt/epochs/00000001.json").read_bytes())
    assert who["pid"] == os.getpid()
    assert who["host"]
    assert who["since"] > 1.7e9


def test_a_replaced_process_is_told_by_whom(tmp_path):
    first, second = owner(tmp_path), owner(tmp_path)
    first.take()
    second.take()
    second.check()
    text = rf"pid {os.getpid()}, epoch 2\) at \d+-.*epoch 1\)"
    with pytest.raises(SupersededError, match=text) as caught:
        first.check()
    assert caught.value.successor == str(find(LocalStorage(), str(tmp_path)))


def test_a_damaged_epoch_file_counts_all_the_same(tmp_path):
    first = owner(tmp_path)
    first.take()
    (tmp_path / ".distckpt/epochs/00000005.json").write_bytes(b"\x00")
    with pytest.raises(SupersededError, match=r"another process \(epoch 5\)"):
        first.check()


def test_a_process_without_an_epoch_owns_nothing(tmp_path):
    with pytest.raises(SupersededError):
        owner(tmp_path).check()


RACE = """
import sys
from distckpt.roles.ownership import Ownership
from distckpt.storage.local import LocalStorage
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    ownership = Ownership(LocalStorage(), sys.argv[1], durable=False)
    ownership.take()
    print(ownership.epoch)
"""


def test_two_processes_never_take_the_same_epoch(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    racers = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    taken = [[int(line) for line in racer.communicate(timeout=60)[0].split()] for racer in racers]
    assert sorted(taken[0] + taken[1]) == list(range(1, 81))
    assert all(epochs == sorted(epochs) for epochs in taken)


def test_what_was_copied_without_the_private_folder_is_older_than_what_comes(tmp_path):
    source = tmp_path / "source"
    for number in (1, 2, 3):
        lab.Chief(source).save("ckpt-1", number)
    (tmp_path / "copy").mkdir()
    for path in source.glob("ckpt-*"):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    copy = lab.Chief(tmp_path / "copy")
    copy.save("ckpt-2", 4)
    assert copy.ownership.epoch == 4
    (tmp_path / "copy" / "checkpoint").unlink()
    assert lab.restorable(tmp_path / "copy") == ("ckpt-2", 4)


def test_a_damaged_manifest_does_not_keep_anybody_from_taking_over(tmp_path):
    (tmp_path / "ckpt-1.manifest.json").write_bytes(b"{")
    (tmp_path / "ckpt-2.manifest.json").mkdir()
    process = owner(tmp_path)
    assert process.take()
    assert process.epoch == 1


def test_an_epoch_that_may_not_be_durable_is_not_relied_on(tmp_path):
    fault = Fault(fails(errno.EIO), Where("flush_directory"), AFTER)
    process = owner(tmp_path, FaultyStorage(LocalStorage(), [fault]))
    with pytest.raises(OSError, match="Input/output"):
        process.take()
    assert process.epoch is None
    assert process.take()
    assert process.epoch == 2


def test_lower_epochs_are_forgotten_and_higher_ones_are_not(tmp_path):
    processes = [owner(tmp_path) for _ in range(3)]
    for process in processes:
        process.take()
    processes[1].forget_older()
    assert epochs(tmp_path) == ["00000002.json", "00000003.json"]
    with pytest.raises(SupersededError):
        processes[0].check()


def test_attempts_are_unique_and_sort_by_age(tmp_path):
    first, second = owner(tmp_path), owner(tmp_path)
    first.take()
    attempts = [first.next_attempt() for _ in range(3)]
    second.take()
    attempts.append(second.next_attempt())
    assert attempts == sorted(set(attempts))
    assert [layout.parse_attempt_id(a)[:2] for a in attempts] == [(1, 1), (1, 2), (1, 3), (2, 1)]


def test_a_pending_folder_is_made_before_the_epoch_is_checked(tmp_path):
    storage = FaultyStorage(LocalStorage())
    process = owner(tmp_path, storage)
    process.take()
    done = len(storage.operations)
    process.enter("ckpt-1.pending-x")
    kinds = [o.kind for o in storage.operations[done:]]
    assert kinds == ["make_directory", "freshen", "list", "flush_directory"]
    assert process.in_flight == {"ckpt-1.pending-x"}


def test_a_replaced_process_leaves_no_pending_folder(tmp_path):
    first, second = owner(tmp_path), owner(tmp_path)
    first.take()
    second.take()
    with pytest.raises(SupersededError):
        first.enter("ckpt-1.pending-x")
    assert not (tmp_path / "ckpt-1.pending-x").exists()


def test_looking_for_the_cause_of_an_error_never_hides_it(tmp_path):
    process = owner(tmp_path, FaultyStorage(LocalStorage()))
    process.check_cause()  # before it has an epoch
    process.take()
    process._storage.add(Fault(fails(errno.EIO), Where("list")))
    process.check_cause()  # though the directory cannot be read
    owner(tmp_path).take()
    with pytest.raises(SupersededError):
        process.check_cause()


def test_all_managers_of_a_process_share_its_hold(tmp_path):
    one = ownership_of(LocalStorage(), str(tmp_path), durable=True)
    assert ownership_of(LocalStorage(), str(tmp_path), durable=True) is one
    assert ownership_of(LocalStorage(), f"{tmp_path}/other", durable=True) is not one


FORK = """
import os, sys
from distckpt.roles.ownership import ownership_of
from distckpt.storage.local import LocalStorage
ownership_of(LocalStorage(), sys.argv[1], durable=False).take()
child = os.fork()
if child == 0:
    ownership_of(LocalStorage(), sys.argv[1], durable=False).take()
    os._exit(0)
os.waitpid(child, 0)
try:
    ownership_of(LocalStorage(), sys.argv[1], durable=False).check()
except Exception as error:
    print(type(error).__name__)
"""


def test_a_forked_child_is_another_process(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    output = subprocess.check_output(command, text=True, env=environment, timeout=60)
    assert output == "SupersededError\n"


INTERRUPTED = """
import signal, sys
from distckpt.roles.ownership import ownership_of
from distckpt.storage.local import LocalStorage

class Interrupted(LocalStorage):
    def write(self, *args, **kwargs):
        signal.raise_signal(signal.SIGINT)

ownership_of(Interrupted(), sys.argv[1], durable=False).take()
"""


def test_who_is_interrupted_at_the_very_end_shows_no_traceback(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    assert done.stderr == ""
    assert find(LocalStorage(), str(tmp_path)).ended is None


def test_the_folders_above_are_flushed_for_they_may_be_new(tmp_path):
    storage = FaultyStorage(LocalStorage())
    directory = tmp_path / "runs" / "one"
    Ownership(storage, str(directory), durable=True).take()
    flushed = {o.paths[0] for o in storage.operations if o.kind == "flush_directory"}
    assert {str(tmp_path / "runs"), str(tmp_path), "/"} <= flushed


def test_who_looks_for_epochs_looks_at_no_old_listing(tmp_path):
    """On NFS a client must change a folder to be shown what is in it."""
    storage = FaultyStorage(LocalStorage())
    ownership = Ownership(storage, str(tmp_path), durable=True)
    ownership.take()
    ownership.enter("ckpt-1.pending-00000001-000001-abc")
    there = [o.kind for o in storage.operations if o.paths[0].endswith("epochs")]
    kinds = [kind for kind in there if kind != "is_link"]
    assert kinds == ["make_directory", "freshen", "list", "freshen", "list"]


@pytest.mark.parametrize("text", ['{"since": 1e30, "host": "a", "pid": 1}', "[" * 100_000, "{}"])
def test_who_has_taken_over_may_have_written_nonsense(tmp_path, text):
    process, other = owner(tmp_path), owner(tmp_path)
    process.take()
    other.take()
    (tmp_path / ".distckpt" / "epochs" / "00000002.json").write_text(text)
    with pytest.raises(SupersededError, match="taken over by another process"):
        process.check()


# --- Malice


@pytest.mark.parametrize("found", ["epochs/999999999999999999.json", "a manifest"])
def test_who_can_take_no_higher_epoch_says_so(tmp_path, found):
    """Else the file of the next one would not be understood, and be in the way for ever."""
    lab.Chief(tmp_path).save("ckpt-1", 1)
    if found == "a manifest":
        (tmp_path / ".distckpt/epochs/00000001.json").unlink()
        path = tmp_path / "ckpt-1.manifest.json"
        path.write_bytes(path.read_bytes().replace(b'"epoch": 1,', b'"epoch": %d,' % (10**18 - 1)))
    else:
        (tmp_path / ".distckpt" / found).write_bytes(b"")
    before = epochs(tmp_path)
    for _ in range(2):
        with pytest.raises(DirectoryError, match="epoch 999999999999999999, above which"):
            owner(tmp_path).take()
    assert epochs(tmp_path) == before


@pytest.mark.parametrize("link", [".distckpt", ".distckpt/epochs", ".distckpt/abandoned"])
def test_a_private_folder_that_is_a_link_is_refused(tmp_path, link):
    """What is removed from it would be removed elsewhere."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / link).parent.mkdir(parents=True)
    (tmp_path / "run" / link).symlink_to(tmp_path / "outside")
    with pytest.raises(DirectoryError, match=f"{link} is a link"):
        owner(tmp_path / "run").take()
    assert list((tmp_path / "outside").iterdir()) == []
