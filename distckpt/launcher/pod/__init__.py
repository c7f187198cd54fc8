"""Starts the one worker of this pod, or of this task of a batch job.

run           waits for the other workers, runs this one, returns an exit code for the scheduler
resolve       waits until the names of the other workers can be resolved
environment   which worker this is, from the scheduler's environment variables (pure)
slurm         the same for Slurm, with its syntax for lists of nodes (pure)
spec          the options of the user
"""

from __future__ import annotations

from distckpt.launcher.pod.run import run
from distckpt.launcher.pod.spec import PodSpec

__all__ = ["PodSpec", "run"]
