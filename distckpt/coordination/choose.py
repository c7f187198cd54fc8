"""Finds the coordinator of this process's job."""

from __future__ import annotations

import os

from distckpt.coordination.base import Coordinator
from distckpt.coordination.in_process import InProcess
from distckpt.coordination.tensorflow_service import TensorFlowService
from distckpt.core import tf_config
from distckpt.errors import ConfigurationError


def default_coordinator() -> Coordinator:
    """Returns the coordinator by which this process reaches the other workers of its job.

    - Under `MultiWorkerMirroredStrategy` with several workers: TensorFlow's coordination service.
    - In the coordinator of a `ParameterServerStrategy`, an evaluator, a single process: one without
      other workers.

    Raises:
      ConfigurationError: ``TF_CONFIG`` is invalid, or it names several workers, but no strategy
        connects them.
    """
    config = tf_config.of(os.environ)
    if config.has_parameter_servers or config.is_evaluator:
        return InProcess.single()
    if TensorFlowService.available():
        return TensorFlowService()
    workers = len(config.workers)
    if workers > 1:
        raise ConfigurationError(
            f"TF_CONFIG names {workers} workers, but no MultiWorkerMirroredStrategy connects them "
            "in this process. Create the strategy first (before any other use of "
            "TensorFlow), or unset TF_CONFIG if this process works alone."
        )
    return InProcess.single()
