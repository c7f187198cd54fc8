"""podman's command line, with a configuration and a storage of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CONFIGURATION = """
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=10000:10000"]
[engine]
# crun, the default, refuses hosts that have both kinds of control groups.
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
STORAGE = """
[storage]
driver = "overlay"
runroot = "{folder}/run"
graphroot = "{folder}/graph"
"""


def missing():
    """Returns why podman cannot be used here, or ""."""
    if os.geteuid():
        return "needs root"
    commands = ("podman", "runc", "debootstrap", "nsenter", "ip")
    absent = [name for name in commands if not shutil.which(name)]
    return f"needs {', '.join(absent)}: tests/pods/install.sh" if absent else ""


class Podman:
    """Runs podman.

    Args:
      folder: Where all is that it makes.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / "networks").mkdir(parents=True, exist_ok=True)
        for name, text in (("containers.conf", CONFIGURATION), ("storage.conf", STORAGE)):
            (self.folder / name).write_text(text.format(folder=self.folder))
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "TMPDIR": str(self.folder),
        }

    def __call__(self, *arguments, timeout=300, check=True, stdin=None):
        """Returns what podman prints.

        Args:
          arguments: Its command line.
          timeout: Seconds that it may take.
          check: Whether it must succeed.
          stdin: A file to read from.
        """
        done = subprocess.run(
            ["podman", *map(str, arguments)],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=stdin or subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise AssertionError(f"podman {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def close(self, *, keep):
        """Removes all containers and networks; the images, too, unless they are kept."""
        self("pod", "rm", "--all", "--force", "--time", 0, check=False)
        self("rm", "--all", "--force", "--time", 0, check=False)
        self("network", "prune", "--force", check=False)
        self("volume", "prune", "--force", check=False)
        if not keep:
            self("rmi", "--all", "--force", check=False, timeout=400)
            shutil.rmtree(self.folder, ignore_errors=True)
