"""What is forked behaves like a program that Python has started."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from .warm import WarmCluster, run

HOW = {
    "": 0,
    "sys.exit(7)": 7,
    "sys.exit('a reason')": 1,
    "raise ValueError('a reason')": 1,
    "os._exit(75)": 75,
    "os.kill(os.getpid(), signal.SIGKILL)": -signal.SIGKILL,
    "os.kill(os.getpid(), signal.SIGTERM)": -signal.SIGTERM,
}


@pytest.fixture
def program(tmp_path):
    """Returns a function which writes a program."""

    def write(code):
        path = tmp_path / "program.py"
        path.write_text(f"import os, signal, sys\n{code}\n")
        return path

    return write


def played(tmp_path, path, *arguments, **env):
    return run([path, *arguments], env={**os.environ, **env}, cwd=tmp_path, timeout=300)


@pytest.mark.parametrize("code", HOW)
def test_it_ends_as_it_would_without_a_server(tmp_path, program, code):
    done = played(tmp_path, program(code))
    assert done.returncode == HOW[code]
    assert ("a reason" in done.stderr) == ("a reason" in code)


def test_tensorflow_is_there(tmp_path, program):
    done = played(tmp_path, program("print('tensorflow' in sys.modules)"))
    assert done.stdout == "True\n"


def test_it_has_its_arguments_environment_folder_and_session(tmp_path, program):
    path = program(
        "print(sys.argv, os.environ['OF_ITS_OWN'], os.getcwd(), __name__)\n"
        "print(os.getsid(0) == os.getpid(), sys.path[0])"
    )
    done = played(tmp_path, path, "one", "two", OF_ITS_OWN="value")
    assert done.stdout.splitlines() == [
        f"{[str(path), 'one', 'two']} value {tmp_path} __main__",
        f"True {tmp_path}",
    ]


def test_threads_and_exit_functions_run_before_it_ends(tmp_path, program):
    path = program(
        "import atexit, threading, time\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        "print('main')"
    )
    assert played(tmp_path, path).stdout.split("\n") == ["main", "thread", "at exit", ""]


def test_a_program_that_takes_too_long_is_killed(tmp_path, program):
    path = program("import time\nprint('begun', os.getpid(), flush=True)\ntime.sleep(600)")
    with pytest.raises(subprocess.TimeoutExpired) as found:
        run([path], env=os.environ, cwd=tmp_path, timeout=5.0)
    begun, pid = found.value.output.split()
    assert begun == b"begun"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_a_worker_of_a_cluster_is_killed_alone(program):
    path = program("import time\nprint(os.environ['TF_CONFIG'], flush=True)\ntime.sleep(600)")
    with WarmCluster([path], workers=2) as cluster:
        while not all('"index"' in cluster.output(index) for index in range(2)):
            cluster.poll(0.05)
        cluster.kill(1)
        while cluster.processes[1].returncode is None:
            cluster.poll(5.0)
        assert [worker.returncode for worker in cluster.processes] == [None, -signal.SIGKILL]
        pids = [worker.pid for worker in cluster.processes]
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
