"""The checksums of a manifest: of its head, and, as its last field, of every byte before it.

They cover bytes, not the parsed content: so they cost little, depend on no JSON library, and
``head -n -2 ckpt-12.manifest.json | head -c -2 | sha256sum`` computes the last one, too. They are
SHA-256 and not CRC32Cs because people edit manifests, which are text full of CRC32Cs. Whoever reads
the whole manifest needs only the last checksum; the head's is for those who read only the head.
"""

from __future__ import annotations

import hashlib
import re

from distckpt.errors import ManifestError

FIELD = "checksum"
HEAD_FIELD = "head_checksum"
_METHOD = "sha256:"
_LAST_LINES = re.compile(rf',\n "{FIELD}": "{_METHOD}([0-9a-f]{{64}})"\n}}\n'.encode())
_SIZE = len(f',\n "{FIELD}": "{_METHOD}"\n}}\n') + 64  # of the above
_HEAD_LINE = re.compile(rf',\n "{HEAD_FIELD}": "{_METHOD}([0-9a-f]{{64}})"'.encode())
_SHOWN = 16  # digits of a checksum in an error


def add(data: bytes) -> bytes:
    """Returns a file's content, a JSON object that is not empty, with its checksum added."""
    content = data.rstrip().removesuffix(b"}").rstrip()
    return content + _line(FIELD, content) + b"\n}\n"


def add_to_head(head: bytes) -> bytes:
    """Returns the beginning of a file, a JSON object without its end, with its checksum added."""
    return head + _line(HEAD_FIELD, head)


def head_in(data: bytes, source: str) -> bytes | None:
    """Returns the JSON object that a file begins with, without the rest; None if there is none.

    Args:
      data: The beginning of the file's content.
      source: What to call the file in errors: its path.

    Raises:
      ManifestError: Its checksum is wrong.
    """
    match = _HEAD_LINE.search(data)
    if match is None:
        return None
    _compare(match, data[: match.start()], source)
    return data[: match.start()] + b"}"


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
    _compare(match, memoryview(data)[:-_SIZE], source)
    return True


def _compare(said: re.Match[bytes], content: bytes | memoryview, source: str) -> None:
    expected, found = said[1].decode(), _of(content)
    if expected != found:
        raise ManifestError(
            f"{source} was changed after it was written: its checksum is {expected[:_SHOWN]}…, its "
            f"content's is {found[:_SHOWN]}…. Nothing that it names is read or deleted. Restore "
            "an older checkpoint."
        )


def _line(field: str, content: bytes) -> bytes:
    return f',\n "{field}": "{_METHOD}{_of(content)}"'.encode()


def _of(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
