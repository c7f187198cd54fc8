"""Cuts a stream of bytes into the lines to show on a console. Pure."""

from __future__ import annotations

# A longer unfinished line is shown in pieces, so that one that never ends costs no memory.
LONGEST_LINE = 64 * 1024


class LineAssembler:
    r"""Turns whatever chunks a program writes into whole lines, without their line ends.

    A line ends with ``\n`` or ``\r\n``. After a lone ``\r`` a terminal would overwrite what it has
    shown, so only the text after the last one counts: of a progress bar, the last state. Bytes are
    never decoded, so it does not matter whether they are text at all.
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
            if not shown[0]:  # the line has been shown already, this is just its end
                del shown[0]
        # "\r" at the very end stays: it may be the first half of "\r\n".
        self._rest = _visible(rest) + (b"\r" if rest.endswith(b"\r") else b"")
        while len(self._rest) > LONGEST_LINE:
            shown.append(self._rest[:LONGEST_LINE])
            self._rest, self._continued = self._rest[LONGEST_LINE:], True
        return shown

    def flush(self) -> list[bytes]:
        """Returns the unfinished line, if any: it has waited long enough, or nothing will follow.

        What comes later on the same line is shown as a line of its own.
        """
        text, self._rest = _visible(self._rest), b""
        if not text:
            return []
        self._continued = True
        return [text]


def _visible(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]
