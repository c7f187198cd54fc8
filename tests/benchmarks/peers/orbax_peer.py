"""Orbax: `CheckpointManager`, blocking ("sync") and asynchronous ("async").

Uncompressed, which is much the faster here, else with the defaults: OCDBT, and every file flushed.
With several processes the arrays are replicated, and Orbax divides the writing by itself.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from serve import Library, leaves, nested, serve


class Orbax(Library):
    """A nested dictionary of `jax.Array`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)
        if settings["count"] > 1:
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize(
                f"localhost:{settings['ports'][0]}", settings["count"], settings["index"]
            )
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("worker",))
        self._everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._managers: dict[str, Any] = {}
        self._last: Any = None

    def versions(self) -> dict[str, str]:
        return {"Orbax": ocp.__version__, "JAX": jax.__version__}

    def build(self, state: dict[str, Any], folder: Path, fresh: bool) -> int:
        self._folder = folder
        self._state = nested(state, lambda n, shape: self._array(n, shape, fresh))
        shapes = {array.shape for array in leaves(self._state)}
        self._gradients = {s: self._array(0, s, False) * 0.01 for s in shapes}
        self._update = jax.jit(_updated, donate_argnums=0)
        self._matrix = jax.numpy.full((512, 512), 1 / 512)
        self._multiply = jax.jit(jax.numpy.matmul)
        return sum(array.nbytes for array in leaves(self._state))

    def _array(self, seed: int, shape: Any, fresh: bool) -> Any:
        rng = np.random.default_rng(seed)
        numbers = np.zeros(shape, "f") if fresh else rng.random(shape, dtype="f")
        return jax.make_array_from_callback(tuple(shape), self._everywhere, lambda i: numbers[i])

    def _manager(self, variant: str) -> Any:
        if variant not in self._managers:
            folder = self._folder / variant
            folder.mkdir(parents=True, exist_ok=True)
            self._managers[variant] = ocp.CheckpointManager(
                folder,
                options=ocp.CheckpointManagerOptions(
                    enable_async_checkpointing=variant == "async", max_to_keep=self.keep
                ),
                item_handlers=ocp.PyTreeCheckpointHandler(use_compression=False),
            )
        return self._managers[variant]

    def compute(self, times: int) -> None:
        product = self._matrix
        for _ in range(times):
            product = self._multiply(product, self._matrix)
        product.block_until_ready()

    def update(self) -> None:
        gradients = {str(shape): g for shape, g in self._gradients.items()}
        self._state = jax.block_until_ready(self._update(self._state, gradients))

    def save(self, variant: str, number: int) -> None:
        self._last = self._manager(variant)
        self._last.save(number, args=ocp.args.PyTreeSave(self._state))

    def wait(self) -> None:
        self._last.wait_until_finished()

    def landed(self) -> bool:
        return not self._last.is_saving_in_progress()

    def restore(self, variant: str, number: int) -> None:
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, self._state)
        how = ocp.checkpoint_utils.construct_restore_args(wanted)
        arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=how)
        restored = self._manager(variant).restore(number, args=arguments)
        self._state = jax.block_until_ready(restored)

    def first_elements(self) -> list[float]:
        return [float(np.asarray(array).flat[0]) for array in leaves(self._state)]


def _updated(state: Any, gradients: Any) -> Any:
    return jax.tree.map(lambda array: array + gradients[str(array.shape)], state)


if __name__ == "__main__":
    serve(Orbax)
