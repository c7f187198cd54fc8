"""Files that a directory should not have, or lacks, when all jobs have ended."""

from __future__ import annotations

from distckpt.core import layout
from distckpt.storage.temporary import is_temporary

from .disk import Disk, Folder
from .oracle import RUN, Oracle


def leftovers(disk: Disk, oracle: Oracle) -> list[str]:
    """Returns the files that belong to no checkpoint, and those that are missing."""
    expected = {f"{RUN}/{layout.POINTER_FILE}"}
    for name, manifest in oracle.committed().items():
        if manifest.replaces is not None:
            return [f"{name} with two versions"]
        files = [layout.manifest_name(name), layout.index_name(name)]
        expected |= {f"{RUN}/{file}" for file in [*files, *(f.name for f in manifest.files)]}
    run = disk.find(RUN)
    found = set(_paths(run, RUN)) if isinstance(run, Folder) else set()
    terms = {path for path in found if path.startswith(layout.terms_folder(RUN))}
    for folder in (layout.quarantine_folder, layout.holds_folder):
        found -= {p for p in found if p.startswith(folder(RUN)) and not is_temporary(p)}
    if len(terms) != 1:
        return sorted(terms)
    return sorted((found - terms) ^ expected)


_STAY = (layout.PRIVATE_FOLDER, "quarantine", "abandoned", "holds")


def _paths(folder: Folder, path: str) -> list[str]:
    """Returns the paths of all files, and of empty folders."""
    if path and not folder.entries and not path.endswith(_STAY):
        return [path + "/"]
    found: list[str] = []
    for name, node in folder.entries.items():
        inner = f"{path}/{name}"
        found += _paths(node, inner) if isinstance(node, Folder) else [inner]
    return found
