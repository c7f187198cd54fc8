"""torch.distributed.checkpoint: `save` ("sync"), and `async_save` in two ways.

"async" stages as `async_save` does by default: a fresh copy before it returns. "kept" is given one
`DefaultStager`, which copies in a thread of its own into memory that it keeps; training waits for
the copy before it next changes the state, as the library's recipe does. Pinned memory needs a GPU.
The files are flushed (`sync_files`, the default), and written by as many threads as there are
cores.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from serve import Library, leaves, nested, serve
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions


class Torch(Library):
    """A nested dictionary of tensors. With several processes each has all, as DDP has."""

    prunes = False

    def __init__(self, settings: dict[str, Any]) -> None:
        warnings.simplefilter("ignore")
        self._alone = settings["count"] == 1
        if not self._alone:
            torch.distributed.init_process_group(
                "gloo",
                init_method=f"tcp://localhost:{settings['ports'][0]}",
                world_size=settings["count"],
                rank=settings["index"],
            )
        self._staging: Any = None
        self._upload: Any = None
        self._stager: Any = None

    def versions(self) -> dict[str, str]:
        return {"PyTorch": torch.__version__}

    def build(self, state: dict[str, Any], folder: Path, fresh: bool) -> int:
        self._folder = folder
        self._state = nested(state, lambda n, shape: _tensor(n, shape, fresh))
        self._tensors = leaves(self._state)
        shapes = {tuple(tensor.shape) for tensor in self._tensors}
        gradients = {shape: torch.rand(shape) * 0.01 for shape in shapes}
        self._gradients = [gradients[tuple(tensor.shape)] for tensor in self._tensors]
        self._matrix = torch.full((512, 512), 1 / 512)
        return sum(tensor.nbytes for tensor in self._tensors)

    def compute(self, times: int) -> None:
        product = self._matrix
        for _ in range(times):
            product = product @ self._matrix

    def update(self) -> None:
        torch._foreach_add_(self._tensors, self._gradients)

    def before_update(self) -> None:
        if self._staging is not None:
            self._staging.result()
            self._staging = None

    def save(self, variant: str, number: int) -> None:
        path = self._folder / variant / str(number)
        threads = len(os.sched_getaffinity(0))
        writer = dcp.FileSystemWriter(path, thread_count=threads)
        arguments: dict[str, Any] = {"storage_writer": writer, "no_dist": self._alone}
        if variant == "sync":
            dcp.save(self._state, **arguments)
            return
        if variant == "kept":
            if self._stager is None:
                self._stager = DefaultStager(StagingOptions(False, False, True, False))
            arguments["async_stager"] = self._stager
        response = dcp.async_save(self._state, **arguments)
        if variant == "kept":
            self._staging, self._upload = response.staging_completion, response.upload_completion
        else:
            self._upload = response

    def wait(self) -> None:
        if self._upload is not None:
            self._upload.result()

    def landed(self) -> bool:
        return self._upload is None or self._upload.done()

    def restore(self, variant: str, number: int) -> None:
        reader = dcp.FileSystemReader(self._folder / variant / str(number))
        dcp.load(self._state, storage_reader=reader, no_dist=self._alone)

    def first_elements(self) -> list[float]:
        return [float(tensor.reshape(-1)[0]) for tensor in self._tensors]


def _tensor(seed: int, shape: Any, fresh: bool) -> Any:
    if fresh:
        return torch.zeros(shape)
    return torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))


if __name__ == "__main__":
    serve(Torch)
