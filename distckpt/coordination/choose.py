"""Finds the coordinator of this process's job."""

from __future__ import annotations

from typing import Any

from distckpt.coordination import tf_config
from distckpt.coordination.base import Coordinator
from distckpt.coordination.in_process import InProcess
from distckpt.coordination.tensorflow_service import TensorFlowService
from distckpt.errors import ConfigurationError


def default_coordinator() -> Coordinator:
    """Returns how this process talks to the other workers of its job, if there are any.

    - Under `MultiWorkerMirroredStrategy` with several workers: TensorFlow's coordination service.
    - The coordinator of a `ParameterServerStrategy`, an evaluator, a single process: nobody.

    Raises:
      ConfigurationError: ``TF_CONFIG`` names several workers, but no strategy connects them.
    """
    config = tf_config.read()
    jobs: dict[str, Any] = config.get("cluster") or {}
    task = (config.get("task") or {}).get("type")
    if "ps" in jobs or task == "evaluator":
        return InProcess.single()
    if TensorFlowService.available():
        return TensorFlowService()
    workers = sum(len(jobs.get(job, [])) for job in ("chief", "master", "worker"))
    if workers > 1:
        raise ConfigurationError(
            f"TF_CONFIG names {workers} workers, but no MultiWorkerMirroredStrategy connects them "
            "in this process. Create the strategy first (it must come before all other use of "
            "TensorFlow), or unset TF_CONFIG if this process works alone."
        )
    return InProcess.single()
