"""Starts the one worker of this pod, or of this task of a batch job.

run           waits for the others, runs the worker, ends with a code that a scheduler understands
resolve       waits until the names of the others can be resolved
environment   who this process is, from what a scheduler says in its environment (pure)
slurm         the same for Slurm, whose lists of nodes are a language of their own (pure)
spec          what the user asks for
"""

from __future__ import annotations

from distckpt.launcher.pod.run import run
from distckpt.launcher.pod.spec import PodSpec

__all__ = ["PodSpec", "run"]
