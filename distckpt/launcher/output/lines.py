"""Splits a stream of bytes into the lines to show on a console. Pure."""

from __future__ import annotations

# A longer unfinished line is shown in pieces, so that an endless line needs little memory.
LONGEST_LINE = 64 * 1024


class LineAssembler:
    r"""Turns a program's output, in arbitrary chunks, into whole lines without line ends.

    A line ends with ``\n`` or ``\r\n``. After a lone ``\r`` a terminal overwrites the line, so only
    the text after the last ``\r`` is used: the last state of a progress bar. Bytes are never
    decoded, so they need not be text.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._continued = False

    @property
    def pending(self) -> bool:
        """Whether there is an unfinished line."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the lines that `data` completes."""
        *lines, rest = (self._rest + data).split(b"\n")
        shown = [_visible(line) if b"\r" in line else line for line in lines]
        if lines and self._continued:
            self._continued = False
            if not shown[0]:  # the line has already been shown, this is just its end
                del shown[0]
        # "\r" at the very end stays: it may be the first half of "\r\n".
        self._rest = _visible(rest) + (b"\r" if rest.endswith(b"\r") else b"")
        while len(self._rest) > LONGEST_LINE:
            shown.append(self._rest[:LONGEST_LINE])
            self._rest, self._continued = self._rest[LONGEST_LINE:], True
        return shown

    def flush(self) -> list[bytes]:
        """Returns the unfinished line, if any: it has waited long enough, or nothing will follow.

        Later text on the same line is shown as a separate line.
        """
        text, self._rest = _visible(self._rest), b""
        if not text:
            return []
        self._continued = True
        return [text]


def _visible(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]
