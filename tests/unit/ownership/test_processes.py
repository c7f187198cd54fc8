"""Terms of several processes, and of one that is forked or interrupted."""

from __future__ import annotations

import os
import subprocess
import sys

from distckpt.ownership.held_terms import HeldTerms
from distckpt.ownership.owner_record import find
from distckpt.storage.local import LocalStorage

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

RACE = """
import sys
from distckpt.ownership.fencing import Ownership
from distckpt.storage.local import LocalStorage
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    ownership = Ownership(LocalStorage(), sys.argv[1], durable=False)
    ownership.take()
    print(ownership.term)
"""


def test_two_processes_never_take_the_same_term(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    racers = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    taken = [[int(line) for line in racer.communicate(timeout=300)[0].split()] for racer in racers]
    assert sorted(taken[0] + taken[1]) == list(range(1, 81))
    assert all(terms == sorted(terms) for terms in taken)


FORK = """
import os, sys
from distckpt.ownership.process_terms import ownership_of
from distckpt.storage.local import LocalStorage
mine = ownership_of(LocalStorage(), sys.argv[1], durable=False)
mine.take()
child = os.fork()
if child == 0:
    mine.take()
    os._exit(0)
os.waitpid(child, 0)
try:
    mine.check()
except Exception as error:
    print(type(error).__name__)
"""


def test_a_forked_child_is_another_process(tmp_path):
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    output = subprocess.check_output(command, text=True, env=ENVIRONMENT, timeout=300)
    assert output == "SupersededError\n"


INTERRUPTED = """
import signal, sys
from distckpt.ownership.process_terms import ownership_of
from distckpt.storage.local import LocalStorage

class Interrupted(LocalStorage):
    def write(self, *args, **kwargs):
        signal.raise_signal(signal.SIGINT)

ownership_of(Interrupted(), sys.argv[1], durable=False).take()
"""


def test_who_is_interrupted_at_the_very_end_shows_no_traceback(tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=True
    )
    assert done.stderr == ""
    assert find(LocalStorage(), str(tmp_path)).ended is None


def test_a_forked_child_does_not_wait_for_a_lock_that_its_parent_held():
    terms = HeldTerms()
    with terms.lock("/run"):
        child = os.fork()
        if child == 0:
            os._exit(not terms.lock("/run").acquire(timeout=5))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
