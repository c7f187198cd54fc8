"""Code for what not every system has is in one place, and its other branch works, too."""

from __future__ import annotations

import ast
import ntpath
import os
import pathlib
import posixpath
import signal
import subprocess
import sys

import pytest

import distckpt
from distckpt.runtime import portable

ROOT = pathlib.Path(distckpt.__file__).parent
# The launcher needs all of these; its package refuses other systems.
GUARDS = [
    ROOT / "runtime/portable.py",
    ROOT / "runtime/signals.py",
    *(ROOT / "launcher").rglob("*.py"),
]
# Names that Python's documentation marks with "Availability: Unix", as far as one might use them.
MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
_OS = """
O_CLOEXEC O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC O_TMPFILE PRIO_PROCESS
WNOHANG chown chroot fchmod fchown fdatasync fork forkpty fpathconf fstatvfs getegid geteuid
getgid getgroups getloadavg getpgid getpgrp getpriority getuid kill killpg lchown link lockf
mkfifo mknod nice openpty pathconf posix_fadvise posix_fallocate posix_spawn pread preadv pwrite
pwritev register_at_fork sched_getaffinity sendfile set_blocking setpgid setpriority setsid
setuid statvfs symlink sync sysconf uname wait wait3 wait4 waitid waitpid
"""
_SIGNAL = """
SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 alarm pause
pthread_kill pthread_sigmask set_wakeup_fd setitimer sigpending sigtimedwait sigwait
"""
OS, SIGNALS = frozenset(_OS.split()), frozenset(_SIGNAL.split())
KEYWORDS = {"pass_fds", "preexec_fn", "start_new_session", "process_group"}


def only_posix(tree):
    """Yields the names of a module that not every system has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.module in MODULES:
                yield node.module
            if node.module in ("os", "signal"):
                yield from (name for name in names if name in OS | SIGNALS)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in {"os": OS, "signal": SIGNALS}.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg in KEYWORDS:
            yield node.arg


def test_what_only_posix_has_is_named_in_few_places():
    found = {
        str(path.relative_to(ROOT)): names
        for path in ROOT.rglob("*.py")
        if path not in GUARDS and (names := list(only_posix(ast.parse(path.read_text()))))
    }
    assert found == {}


def test_such_names_would_be_found():
    code = "import fcntl, os\nfrom signal import SIGHUP\nos.kill(1, 9)\nrun(preexec_fn=None)"
    assert sorted(only_posix(ast.parse(code))) == ["SIGHUP", "fcntl", "os.kill", "preexec_fn"]


def test_paths_are_made_absolute_in_one_place():
    """So that the parts of a path are always parted by "/"."""
    users = [p for p in ROOT.rglob("*.py") if ".abspath(" in p.read_text() and p not in GUARDS]
    assert users == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("C:\\runs\\digits", "C:/runs/digits"),
        ("C:\\runs\\..\\digits\\", "C:/digits"),
        ("\\\\server\\share\\run", "//server/share/run"),
        ("gs://bucket/run", "gs://bucket/run"),
        ("ram://a\\b", "ram://a\\b"),
    ],
)
def test_paths_of_windows(path, expected):
    assert portable.absolute(path, ntpath) == expected


def test_paths_of_posix():
    """There a backslash is a part of a name."""
    assert portable.absolute("/a/../b\\c/", posixpath) == "/b\\c"
    assert portable.absolute("run") == os.path.join(os.getcwd(), "run")


def elsewhere(*command, **options):
    """Runs Python as on a system that is none of POSIX."""
    env = {**os.environ, "DISTCKPT_POSIX": "0"}
    return subprocess.run(
        [sys.executable, *command], env=env, capture_output=True, text=True, timeout=500, **options
    )


def test_the_launcher_refuses_other_systems():
    for command in (["--workers", "2"], []):
        done = elsewhere("-m", "distckpt", "launch", *command, "--", "python", "train.py")
        assert done.returncode == 2
        assert "distckpt launch needs a POSIX system, such as Linux." in done.stderr
    done = elsewhere("-c", "import distckpt.launcher")
    assert "UnsupportedOptionError: Starting workers needs a POSIX system" in done.stderr


def test_a_fault_point_kills_everywhere_and_stops_where_that_can_be():
    strike = "from distckpt.runtime import portable; portable.strike(stop={})"
    assert elsewhere("-c", strike.format(False)).returncode == -signal.SIGABRT
    assert "the fault 'stop' needs a POSIX system" in elsewhere("-c", strike.format(True)).stderr


@pytest.mark.posix
def test_what_was_stopped_goes_on_where_it_was():
    program = "from distckpt.runtime import portable; portable.strike(stop=True); print('goes on')"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with child:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        child.send_signal(signal.SIGCONT)
        assert child.communicate(timeout=300)[0] == "goes on\n"
    assert child.returncode == 0


@pytest.mark.cluster  # a part of the suite runs again: it takes two minutes
@pytest.mark.skipif(not portable.POSIX, reason="this is that run")
def test_the_tests_of_what_touches_files_pass_on_the_other_branch():
    tests = pathlib.Path(__file__).parents[1]
    parts = ["contract/test_local_storage.py", "contract/test_local_durability.py"]
    parts += ["contract/test_local_links.py", "contract/test_shared_directory.py"]
    parts += ["unit/storage/test_temporary.py"]
    parts += ["contract/test_faulty_storage.py", "contract/test_in_process.py"]
    parts += [
        "unit/test_portable.py",
        "unit/reading/test_reader.py",
        "unit/listeners/test_dispatcher.py",
    ]
    parts += ["unit/ownership/test_fencing.py", "unit/ownership/test_processes.py"]
    parts += ["unit/ownership/test_replaced_directory.py", "unit/ownership/test_mentioned_terms.py"]
    parts += ["unit/directory/test_pinning.py"]
    parts += ["unit/saving/test_fault_points.py", "unit/restoring/test_verifier.py"]
    parts += ["unit/manager/test_keep.py", "unit/manager/test_errors.py"]
    parts += ["unit/manager/test_async.py", "unit/manager/test_async_state.py"]
    parts += ["unit/manager/test_async_failures.py", "unit/manager/test_program_end.py"]
    parts += ["unit/manager/test_worker_state.py"]
    done = elsewhere(
        *("-m", "pytest", "-q", "-x", "-m", "not cluster", "-p", "no:cacheprovider"),
        *(str(tests / part) for part in parts),
        cwd=tests.parent,
    )
    assert done.returncode == 0, done.stdout[-5000:]
