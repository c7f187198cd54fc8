"""Halves what importing TensorFlow costs in the tests and in the programs that they start.

- Keras imports scikit-learn and matplotlib where they are installed, for wrappers that no test
  uses. It works without them, as for most users. A program that imports them gets them.
- The garbage collector would search its million objects again and again, and once more when the
  process ends. None of them is garbage.
"""

from __future__ import annotations

import gc
import sys
from importlib.machinery import ModuleSpec, PathFinder

_SLOW = ("tensorflow", "keras")
_UNUSED = ("matplotlib", "sklearn")


class _Finder:
    """Finds `_SLOW` where they are, and not `_UNUSED` while those are imported."""

    def __init__(self) -> None:
        self._imports = 0  # of _SLOW, which have begun and not ended

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        if self._imports and name in _UNUSED:
            raise ModuleNotFoundError(f"{name} is hidden from Keras", name=name)
        if name not in _SLOW:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            self._wrap(spec.loader)
        return spec

    def _wrap(self, loader) -> None:
        execute = loader.exec_module

        def execute_lean(module):
            collects = gc.isenabled()
            self._imports += 1
            gc.disable()
            try:
                execute(module)
            finally:
                self._imports -= 1
                gc.freeze()
                if collects:
                    gc.enable()

        loader.exec_module = execute_lean


sys.meta_path.insert(0, _Finder())
