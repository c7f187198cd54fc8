"""Starts workers as processes of this machine: ``distckpt launch``, and the same from Python.

`launch` runs a whole job: it shows output, forwards signals and restarts. `LocalCluster` is one
start of the workers, controlled by a test or a program. Neither imports TensorFlow. From the top:

    run         launch: wires the rest together
    supervisor  when to stop, kill, restart and finish (pure)
    cluster     LocalCluster
    guarded     one worker, through its guard
    guard       the process that ensures that no process is left behind
    pump        output: from pipes to console, lines (formatting) and worker_output (storage)
    ports       free ports
    posix_only  refuses other systems
    spec, tasks, outcome, elastic
                what to run, roles, how it ended, lost workers (pure)
    pod         the one worker of a pod, or of a task of a batch job
"""

from __future__ import annotations

from distckpt.launcher import posix_only as posix_only
from distckpt.launcher.cluster import CommandError, LocalCluster
from distckpt.launcher.outcome import LaunchResult, WorkerProcess
from distckpt.launcher.run import launch
from distckpt.launcher.spec import LaunchSpec

__all__ = [
    "CommandError",
    "LaunchResult",
    "LaunchSpec",
    "LocalCluster",
    "WorkerProcess",
    "launch",
]
