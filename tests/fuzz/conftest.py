"""Lets child processes import these modules, but distckpt from where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path

_root = str(Path(__file__).parents[2])
if _root not in sys.path:
    sys.path.append(_root)
