"""``distckpt launch`` as people run it: real processes, real signals, a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

# In a worker: `first` is true for worker 1 at the first start.
FIRST = (
    "import json, os, signal, sys, time\n"
    "index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
    "first = index == 1 and os.environ['DISTCKPT_RESTART'] == '0'\n"
)


def test_all_finished_is_exit_code_0_and_lines_carry_names(launch) -> None:
    done = launch("--workers", 2, "import sys; print('a\\nb'); print('c', file=sys.stderr)")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == [
        "[worker 0] a",
        "[worker 0] b",
        "[worker 1] a",
        "[worker 1] b",
    ]
    assert sorted(done.stderr.splitlines()) == ["[worker 0] c", "[worker 1] c"]


def test_the_chief_is_called_chief(launch) -> None:
    done = launch("--workers", 2, "--chief", "print(1)")
    assert sorted(done.stdout.splitlines()) == ["[chief] 1", "[worker 0] 1"]


def test_a_worker_that_finishes_early_is_not_a_failure(launch) -> None:
    done = launch("--workers", 2, FIRST + "time.sleep(0.3 * index); print('whole')")
    assert done.returncode == 0
    assert done.stdout.count("whole") == 2


@pytest.mark.parametrize(
    ("deed", "exit_code", "words"),
    [
        ("sys.exit(7)", 7, "exited with code 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "was killed by SIGTERM"),
    ],
)
def test_the_first_failed_worker_decides_and_the_others_are_stopped(
    launch, deed: str, exit_code: int, words: str
) -> None:
    code = FIRST + f"if first: {deed}\ntime.sleep(600)"
    done = launch("--workers", 3, code)
    assert done.returncode == exit_code
    assert re.search(rf"distckpt launch: worker 1 \(pid \d+\) {words}; stopping", done.stderr)


def test_others_that_ignore_sigterm_are_killed_after_the_stop_grace(launch) -> None:
    code = (
        FIRST + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if first: time.sleep(0.5); sys.exit(1)\n"
        "time.sleep(600)"
    )
    began = time.monotonic()
    done = launch("--workers", 2, "--stop-grace", 0.3, code)
    assert done.returncode == 1
    assert "not ended in time: worker 0; killing" in done.stderr
    assert time.monotonic() - began < 20.0


def test_a_restart_starts_all_again_on_fresh_ports_in_the_same_run(launch) -> None:
    code = FIRST + (
        "print(json.dumps([os.environ['DISTCKPT_RESTART'], os.environ['DISTCKPT_RUN_ID'],"
        " json.loads(os.environ['TF_CONFIG'])['cluster']['worker']]))\n"
        "if first: os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(600 if os.environ['DISTCKPT_RESTART'] == '0' else 0)"
    )
    done = launch("--workers", 2, "--max-restarts", 2, code)
    assert done.returncode == 0
    assert re.search(r"restart 1 of 2, because worker 1 \(pid \d+\) was killed", done.stderr)
    assert "restart 2" not in done.stderr
    said = [json.loads(line.partition("] ")[2]) for line in done.stdout.splitlines()]
    again = [ports for restart, _, ports in said if restart == "1"]
    before = [ports for restart, _, ports in said if restart == "0"]
    assert len(again) == 2
    assert before
    assert not set(again[0]) & set(before[0])
    assert len({run_id for _, run_id, _ in said}) == 1


def test_restarts_are_used_up_and_the_last_failure_counts(launch, tmp_path: Path) -> None:
    code = "import os, sys; sys.exit(10 + int(os.environ['DISTCKPT_RESTART']))"
    done = launch("--workers", 1, "--max-restarts", 2, "--log-dir", tmp_path / "logs", code)
    assert done.returncode == 12
    assert "all 2 restarts are used up" in done.stderr
    assert str(tmp_path / "logs" / "worker-0.restart-2.log") in done.stderr
    assert sorted(os.listdir(tmp_path / "logs")) == [
        f"worker-0.restart-{restart}.log" for restart in range(3)
    ]


def test_an_elastic_cluster_goes_on_with_those_that_are_left(launch) -> None:
    """Worker 1 of three is lost, the other two meet in a cluster of two; one alone is too few."""
    code = FIRST + (
        "workers = len(json.loads(os.environ['TF_CONFIG'])['cluster']['worker'])\n"
        "print('start', os.environ['DISTCKPT_RESTART'], 'of', workers, flush=True)\n"
        "if index == 1 and {lost}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "if {lost}: time.sleep(60)\n"
    )
    elastic = ["--elastic", "2:3", "--max-restarts", 5, "--elastic-wait", 0.1]
    done = launch(*elastic, code.format(lost="workers == 3"))
    assert done.returncode == 0
    assert "restart 1 of 5 with 2 workers, because worker 1 (pid " in done.stderr
    lines = [line for line in done.stdout.splitlines() if "start 1" in line]
    assert sorted(lines) == ["[worker 0] start 1 of 2", "[worker 1] start 1 of 2"]
    done = launch(*elastic, code.format(lost="True"))
    assert done.returncode == 69
    assert "left: 1 worker, and it takes 2; because worker 1" in done.stderr


def test_environment_variables_reach_the_workers(launch) -> None:
    code = "import os; print(os.environ['A'], os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    done = launch("--workers", 1, "--env", "A=x=y", code)
    assert done.stdout == "[worker 0] x=y 2\n"


def test_options_after_the_command_belong_to_the_command(run) -> None:
    code = "import sys; print(sys.argv[1:])"
    done = run("launch", "--workers", 1, sys.executable, "-c", code, "--workers", 9)
    assert done.stdout == "[worker 0] ['--workers', '9']\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["--workers", "0", "true"], 2, "workers must be a whole number, 1 or more, got 0"),
        (["--workers", "x", "true"], 2, "'x' is not a valid integer"),
        (["--workers", "2"], 2, "Missing argument 'COMMAND...'"),
        (["--", "true"], 78, "Nothing says which worker of which job this is"),
        (["--max-restarts", "1", "--", "true"], 2, "(in a pod, the scheduler restarts)"),
        (["--workers", "1", "--replicas", "1", "true"], 2, "--replicas is for the one worker of"),
        (["--elastic", "2", "true"], 2, "'2' is not LEAST:MOST"),
        (["--elastic", "3:2", "true"], 2, "'3:2' is not LEAST:MOST"),
        (["--elastic", "1:2", "--workers", "3", "true"], 2, "--workers 3 is more than the 2"),
        (["--elastic", "2:3", "--workers", "1", "true"], 2, "It takes 2 workers to go on"),
        (["--workers", "1", "--grace", "nan", "true"], 2, "grace must be a finite number"),
        (["--workers", "1", "--max-restarts", "-1", "true"], 2, "max_restarts must be"),
        (["--workers", "1", "--env", "A", "true"], 2, "'A' is not KEY=VALUE"),
        (["--workers", "1", "--env", "=A", "true"], 2, "'=A' is not KEY=VALUE"),
        (["--workers", "1", "--env", "TF_CONFIG=", "true"], 2, "TF_CONFIG is set by the launcher"),
        (["--workers", "1", "--log-dir", "/dev/null/x", "true"], 2, "log directory cannot be"),
        (["--workers", "2", "no-such-command"], 127, "Cannot run 'no-such-command': No such file"),
        (["--workers", "2", "/etc/passwd"], 126, "Cannot run '/etc/passwd': Permission denied"),
    ],
)
def test_bad_input_has_a_clear_error_and_a_documented_exit_code(
    run, arguments: list[str], exit_code: int, words: str
) -> None:
    done = run("launch", *arguments)
    assert done.returncode == exit_code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_cannot_run_is_not_tried_again(run) -> None:
    done = run("launch", "--workers", 1, "--max-restarts", 3, "--", "no-such-command")
    assert done.returncode == 127
    assert "restart" not in done.stderr


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_passed_on_and_workers_may_finish(
    start, processes, programs: Path, number: int, exit_code: int
) -> None:
    launcher = start("launch", "--workers", 2, "--", sys.executable, programs / "polite.py")
    pids = processes.wait_for(2)
    launcher.send_signal(number)
    out, err = launcher.communicate(timeout=30.0)
    assert launcher.returncode == exit_code
    name = signal.Signals(number).name.encode()
    assert out.count(b"got " + name) == 2
    assert name + b": passed on to the workers, which have 30 s" in err
    processes.all_gone(pids)


def test_workers_that_fail_because_of_the_signal_are_not_started_again(
    start, processes, programs: Path
) -> None:
    code = (
        "import os, pathlib, time\n"
        "pathlib.Path(os.environ['PIDS'], f'{os.getpid()}.pid').touch()\n"
        "time.sleep(600)"
    )
    options = ["--workers", 2, "--max-restarts", 5]
    launcher = start("launch", *options, "--", sys.executable, "-c", code)
    pids = processes.wait_for(2)
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=30.0)
    assert launcher.returncode == 130
    assert err.count(b"KeyboardInterrupt") == 2
    assert b"restart 1" not in err
    processes.all_gone(pids)


def test_the_grace_period_ends_with_sigkill(start, processes, programs: Path) -> None:
    command = ["--workers", 2, "--grace", 0.3, "--", sys.executable, programs / "family.py"]
    launcher = start("launch", *command)
    pids = processes.wait_for(6)
    launcher.terminate()
    _, err = launcher.communicate(timeout=20.0)
    assert launcher.returncode == 143
    assert b"not ended in time: worker 0, worker 1; killing" in err
    processes.all_gone(pids)


def test_a_second_sigint_kills_at_once(start, processes, programs: Path) -> None:
    command = ["--workers", 2, "--grace", 600, "--", sys.executable, programs / "family.py"]
    launcher = start("launch", *command)
    pids = processes.wait_for(6)
    launcher.send_signal(signal.SIGINT)
    _read_until(launcher.stderr.fileno(), b"passed on")
    assert all(map(processes.alive, pids))
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=30.0)
    assert launcher.returncode == 130
    assert b"SIGINT again" in err
    processes.all_gone(pids)


def test_nohup_is_honoured(start, processes, programs: Path) -> None:
    launcher = start(
        "launch",
        *["--workers", 1, "--", sys.executable, programs / "polite.py"],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    processes.wait_for(1)
    launcher.send_signal(signal.SIGHUP)
    launcher.terminate()
    launcher.communicate(timeout=30.0)
    assert launcher.returncode == 143


def test_a_launcher_that_is_killed_takes_all_descendants_along(
    start, processes, programs: Path
) -> None:
    launcher = start("launch", "--workers", 2, "--", sys.executable, programs / "family.py")
    pids = processes.wait_for(6)
    descendants = [child.pid for child in psutil.Process(launcher.pid).children(recursive=True)]
    assert set(pids) < set(descendants), "the guards are there, too"
    launcher.kill()
    launcher.wait()
    processes.all_gone(descendants)


def test_what_a_worker_left_behind_is_gone_when_the_launcher_ends(
    start, processes, programs: Path
) -> None:
    command = ["--workers", 1, "--stop-grace", 0.2, "--", sys.executable]
    launcher = start("launch", *command, programs / "family.py", 5)
    pids = processes.wait_for(3)
    launcher.communicate(timeout=30.0)
    assert launcher.returncode == 5
    assert not any(map(processes.alive, pids))


def test_a_console_that_nobody_reads_does_not_delay_a_signal(start, processes) -> None:
    code = (
        "import os, pathlib\n"
        "pathlib.Path(os.environ['PIDS'], f'{os.getpid()}.pid').touch()\n"
        "while True: os.write(1, b'x' * 10000 + b'\\n')"
    )
    launcher = start("launch", "--workers", 2, "--", sys.executable, "-c", code)
    pids = processes.wait_for(2)
    time.sleep(0.5)  # for the pipe to fill up
    launcher.terminate()
    processes.all_gone(pids)
    assert launcher.wait(30.0) == 143


def test_a_reader_that_goes_away_does_not_stop_the_training(start, processes) -> None:
    code = "print('a', flush=True)\nfor _ in range(100000): print('b')\nopen(PATH, 'w').close()"
    done = processes.directory / "done"
    code = code.replace("PATH", repr(str(done)))
    launcher = start("launch", "--workers", 1, "--", sys.executable, "-c", code)
    launcher.stdout.readline()
    launcher.stdout.close()
    assert launcher.wait(30.0) == 0
    assert done.exists()


def test_the_last_output_waits_for_a_slow_reader(start, processes) -> None:
    # With the names before them the lines are more than the launcher's own pipe can hold, so it
    # has to wait for the reader long after the worker has ended.
    done = processes.directory / "done"
    code = f"import os; os.write(1, b'xxxxxxxxx\\n' * 6000); open({str(done)!r}, 'w').close()"
    launcher = start("launch", "--workers", 1, "--", sys.executable, "-c", code)
    deadline = time.monotonic() + 60.0
    while not done.exists() or psutil.Process(launcher.pid).children():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.0)
    out, _ = launcher.communicate(timeout=30.0)
    assert out.count(b"x") == 9 * 6000


def test_launching_inside_a_launch_works(run) -> None:
    inner = [sys.executable, "-m", "distckpt", "launch", "--workers", "2", "--", "echo", "hi"]
    done = run("launch", "--workers", 1, "--", *inner)
    lines = sorted(done.stdout.splitlines())
    assert lines == ["[worker 0] [worker 0] hi", "[worker 0] [worker 1] hi"]


def _read_until(fd: int, text: bytes) -> bytes:
    received, deadline = b"", time.monotonic() + 30.0
    while text not in received:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"no {text!r} in {received!r}"
        received += os.read(fd, 4096)
    return received


# Makes its standard input the terminal that controls it, as a login does, and becomes the command.
_LOGIN = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture
def terminal(start, monkeypatch: pytest.MonkeyPatch):
    """Runs ``distckpt launch`` on a terminal; yields a function that returns (process, fd)."""
    masters = []

    def launch(*arguments: object, env: dict[str, str] | None = None):
        master, slave = pty.openpty()
        masters.append(master)
        # Ctrl-C makes the kernel drop what was written to the terminal and not yet read, which may
        # be the very answer to that Ctrl-C; NOFLSH keeps it.
        modes = termios.tcgetattr(slave)
        modes[3] |= termios.NOFLSH
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
        with monkeypatch.context() as patch:
            popen = subprocess.Popen
            patch.setattr(
                subprocess,
                "Popen",
                lambda command, **rest: popen([sys.executable, "-c", _LOGIN, *command], **rest),
            )
            process = start("launch", *arguments, env=env, start_new_session=True, **streams)
        os.close(slave)
        return process, master

    yield launch
    for master in masters:
        os.close(master)


def test_ctrl_c_on_a_terminal_reaches_the_workers_once(terminal, processes, programs: Path) -> None:
    launcher, fd = terminal("--workers", 2, "--", sys.executable, programs / "polite.py")
    pids = processes.wait_for(2)
    os.write(fd, b"\x03")
    text = _read_until(fd, b"got SIGINT")
    assert launcher.wait(30.0) == 130
    assert b"SIGINT: passed on" in text
    assert b"again" not in text
    processes.all_gone(pids)


def test_ctrl_c_twice_on_a_terminal_kills(terminal, processes, programs: Path) -> None:
    command = ["--workers", 1, "--grace", 600, "--", sys.executable, programs / "family.py"]
    launcher, fd = terminal(*command)
    pids = processes.wait_for(3)
    os.write(fd, b"\x03")
    _read_until(fd, b"passed on")
    os.write(fd, b"\x03")
    _read_until(fd, b"SIGINT again")
    assert launcher.wait(30.0) == 130
    processes.all_gone(pids)


def test_a_terminal_that_is_closed_ends_the_workers(start, processes, programs: Path) -> None:
    # What the kernel does then is to send SIGHUP; writing to the terminal fails from then on.
    master, slave = pty.openpty()
    streams = dict.fromkeys(("stdout", "stderr"), slave)
    command = ["--workers", 1, "--", sys.executable, programs / "polite.py"]
    launcher = start("launch", *command, **streams)
    os.close(slave)
    pids = processes.wait_for(1)
    os.close(master)
    launcher.send_signal(signal.SIGHUP)
    assert launcher.wait(30.0) == 129
    processes.all_gone(pids)


def test_a_stopped_terminal_does_not_keep_ctrl_c_from_working(terminal, processes) -> None:
    code = (
        "import os, pathlib\n"
        "pathlib.Path(os.environ['PIDS'], f'{os.getpid()}.pid').touch()\n"
        "while True: print('x' * 1000)"
    )
    launcher, fd = terminal("--workers", 1, "--", sys.executable, "-c", code)
    pids = processes.wait_for(1)  # and nobody reads from `fd`
    time.sleep(0.5)
    os.write(fd, b"\x03")
    processes.all_gone(pids)
    assert launcher.wait(30.0) == 130


def test_names_are_coloured_on_a_terminal(terminal) -> None:
    launcher, fd = terminal("--workers", 1, "--", "echo", "hi")
    assert b"\x1b[36m[worker 0]\x1b[0m hi" in _read_until(fd, b"hi")
    assert launcher.wait(30.0) == 0


def test_names_are_plain_on_a_terminal_with_no_color(terminal) -> None:
    launcher, fd = terminal("--workers", 1, "--", "echo", "hi", env={"NO_COLOR": "1"})
    assert b"\x1b" not in _read_until(fd, b"[worker 0] hi")
    assert launcher.wait(30.0) == 0


def test_version_is_printed(run) -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("distckpt ")


def test_help_documents_options_and_exit_codes(run) -> None:
    text = run("launch", "--help").stdout
    for word in ("--workers", "--max-restarts", "--log-dir", "--chief", "--grace", "127", "143"):
        assert word in text
    assert "distckpt launch --workers 4 -- python train.py" in text


def test_without_a_command_the_help_is_shown(run) -> None:
    done = run()
    assert "launch" in done.stdout + done.stderr


def test_the_command_line_imports_no_tensorflow() -> None:
    code = (
        "import sys, distckpt.cli, distckpt.launcher;"
        "print([m for m in sys.modules if m.partition('.')[0] in ('tensorflow', 'keras', 'numpy')])"
    )
    root = str(Path(__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "[]\n"
