"""Launchers as in pods: a process each, with a host name of its own and names that resolve.

The names are in a file that stands for /etc/hosts in a mount namespace of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import portpicker
import pytest

import distckpt

# A program that shows which worker it is.
SHOW = "import os, json; print(json.loads(os.environ['TF_CONFIG'])['task']['index'], flush=True)"


def can_unshare():
    if os.geteuid() or not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-m", "-u", "true"], capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not can_unshare(), reason="needs root, and unshare")


class Pods:
    """Starts launchers as in pods.

    Args:
      folder: For the file of names.
    """

    def __init__(self, folder):
        self.folder = folder
        self.port = portpicker.pick_unused_port()
        self.started = []

    def names(self, *names):
        """Says which names resolve."""
        lines = [f"127.0.0.{2 + i} {name}" for i, name in enumerate(names)]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def start(self, index, code, *options, count=3):
        """Starts pod `index` of an Indexed Job called "job", with a program of Python."""
        launch = ["distckpt", "launch", "--replicas", str(count), "--service", "net", *options]
        command = [*launch, "--", sys.executable, "-c", code]
        return self.run(f"job-{index}", command, {"JOB_COMPLETION_INDEX": str(index)})

    def run(self, host, command, variables):
        """Starts a command of distckpt on a host of this name."""
        assert command[0] == "distckpt"
        inside = 'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"'
        environment = {**os.environ, "DISTCKPT_PORT": str(self.port), **variables}
        environment["PYTHONPATH"] = str(Path(distckpt.__file__).parents[1])
        environment.pop("TF_CONFIG", None)
        outside = ["unshare", "-m", "-u", "sh", "-ec", inside, "sh", host, self.folder / "hosts"]
        process = subprocess.Popen(
            [*outside, sys.executable, "-m", *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def close(self):
        """Ends all."""
        for process in self.started:
            process.kill()
            process.communicate()


def ends(processes):
    """Returns (exit code, output, messages) of each."""
    outputs = [process.communicate(timeout=300) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]
