"""The checksum of a manifest: the manifest's last field, over every byte before it.

It covers the bytes, not the parsed content: so it costs little, depends on no JSON library, and
``head -n -2 ckpt-12.manifest.json | head -c -2 | sha256sum`` computes it, too. It is SHA-256 and
not a CRC32C because people edit manifests, which are text full of CRC32Cs.
"""

from __future__ import annotations

import hashlib
import re

from distckpt.errors import ManifestError

FIELD = "checksum"
_METHOD = "sha256:"
_LAST_LINES = re.compile(rf',\n "{FIELD}": "{_METHOD}([0-9a-f]{{64}})"\n}}\n'.encode())
_SIZE = len(f',\n "{FIELD}": "{_METHOD}"\n}}\n') + 64  # of the above
_SHOWN = 16  # digits of a checksum in an error


def add(data: bytes) -> bytes:
    """Returns a file's content, a JSON object that is not empty, with its checksum added."""
    content = data.rstrip().removesuffix(b"}").rstrip()
    return content + f',\n "{FIELD}": "{_METHOD}{_of(content)}"\n}}\n'.encode()


def verify(data: bytes, source: str) -> bool:
    """Returns whether a file has a checksum where `add` writes it. If so, the checksum is correct.

    Args:
      data: The file's content.
      source: What to call it in errors: its path.

    Raises:
      ManifestError: The file has a wrong checksum.
    """
    match = _LAST_LINES.fullmatch(data, max(0, len(data) - _SIZE))
    if match is None:
        return False
    said, found = match[1].decode(), _of(memoryview(data)[:-_SIZE])
    if said != found:
        raise ManifestError(
            f"{source} was changed after it was written: its checksum is {said[:_SHOWN]}…, its "
            f"content's is {found[:_SHOWN]}…. Nothing that it names is read or deleted. Restore "
            "an older checkpoint."
        )
    return True


def _of(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
