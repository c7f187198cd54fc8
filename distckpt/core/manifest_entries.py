"""The tensors of a manifest as JSON: a row for each of a few, or compressed columns for many.

A row takes about 100 bytes, so a million of them would take 100 MB. Columns of similar values,
compressed, take about 10 bytes for each tensor, and are read several times faster.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import zlib
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from distckpt.core.manifest import EntryRecord, PieceRecord
from distckpt.errors import ManifestError

MOST_ROWS = 1000
_ONE_WHOLE = ("",)  # the specs of a tensor that was not divided
_LEVEL = 1  # of compression: higher ones take three times as long for one byte in ten less
# Real manifests shrink to a tenth; more than this is not one.
_MOST_GROWTH, _SMALL = 512, 1 << 20

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Columns(msgspec.Struct):
    """Many tensors: a column for each field, in the order of the tensors, or of their pieces.

    Attributes:
      keys: Of each tensor.
      kinds: The types and shapes that there are.
      kind: Of each tensor: the number of its type and shape in `kinds`.
      specs: The slice specs of a tensor's pieces, by the tensor's number. A tensor that is not
        here has one piece, the whole tensor.
      files: Of each piece, as `PieceRecord.file`.
      gaps: Of each piece: its offset, less the end of the piece before it in the same file.
      sizes: Of each piece.
      crc32cs: Of each piece.
    """

    keys: list[str]
    kinds: list[tuple[str, tuple[int, ...]]]
    kind: list[_Count]
    specs: dict[int, list[str]]
    files: list[_Count]
    gaps: list[int]
    sizes: list[_Count]
    crc32cs: list[_Count]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Columns)


def to_json(entries: Sequence[EntryRecord]) -> list[Any] | str:
    """Returns tensors as a JSON value: rows, or text that contains compressed columns."""
    if len(entries) > MOST_ROWS:
        with contextlib.suppress(UnicodeEncodeError):  # foreign keys, which only rows can hold
            return pack(entries)
    return [[e.key, e.dtype, e.shape, [_piece_row(p) for p in e.pieces]] for e in entries]


def from_json(value: Any, files: int, wanted: bool) -> tuple[EntryRecord, ...]:
    """Returns the tensors in a JSON value.

    Args:
      value: What `to_json` has returned.
      files: The number of the checkpoint's files.
      wanted: If False, they are left out. Rows are checked nevertheless, because old manifests have
        no checksum.

    Raises:
      ManifestError: A tensor is outside the checkpoint's files.
      ValueError: The value is malformed; also TypeError and others.
    """
    if isinstance(value, str):
        return unpack(value, files) if wanted else ()
    if not wanted and _are_sound(value, files):
        return ()
    entries = tuple(_entry(row, files) for row in value)
    return entries if wanted else ()


def pack(entries: Sequence[EntryRecord]) -> str:
    """Returns tensors as compressed columns, in base64."""
    columns = _Columns([], [], [], {}, [], [], [], [])
    kinds: dict[tuple[str, tuple[int, ...]], int] = {}
    ends: dict[int, int] = {}
    for number, entry in enumerate(entries):
        columns.keys.append(entry.key)
        columns.kind.append(kinds.setdefault((entry.dtype, entry.shape), len(kinds)))
        pieces = entry.pieces
        if len(pieces) != 1 or pieces[0].spec:
            columns.specs[number] = [piece.spec for piece in pieces]
        for piece in pieces:
            file, offset, size = piece.file, piece.offset, piece.size
            columns.files.append(file)
            columns.gaps.append(offset - ends.get(file, 0))
            columns.sizes.append(size)
            columns.crc32cs.append(piece.crc32c)
            ends[file] = offset + size
    columns.kinds = list(kinds)
    return base64.b64encode(zlib.compress(_encoder.encode(columns), _LEVEL)).decode()


def unpack(text: str, files: int) -> tuple[EntryRecord, ...]:
    """Returns the tensors that `pack` has packed. Raises as `from_json`."""
    try:
        columns = _decoder.decode(_decompress(base64.b64decode(text, validate=True)))
    except (msgspec.MsgspecError, zlib.error) as error:
        raise ValueError(f"its tensors are not readable: {error}") from None
    pieces = iter(_pieces(columns, files))
    entries = []
    for number, (key, kind) in enumerate(zip(columns.keys, columns.kind, strict=True)):
        dtype, shape = columns.kinds[kind]
        if number in columns.specs:
            own = tuple(itertools.islice(pieces, len(columns.specs[number])))
        else:
            own = (next(pieces),)
        entries.append(EntryRecord(key, dtype, shape, own))
    return tuple(entries)


def _pieces(columns: _Columns, files: int) -> list[PieceRecord]:
    if max(columns.files, default=-1) >= files:
        raise ManifestError("an entry points outside the checkpoint's files.")
    tensors = range(len(columns.keys))
    specs = [spec for number in tensors for spec in columns.specs.get(number, _ONE_WHOLE)]
    ends: dict[int, int] = {}
    pieces = []
    fields = zip(columns.files, columns.gaps, columns.sizes, columns.crc32cs, specs, strict=True)
    for file, gap, size, crc32c, spec in fields:
        offset = ends.get(file, 0) + gap
        if offset < 0:
            raise ManifestError("an entry points outside the checkpoint's files.")
        ends[file] = offset + size
        pieces.append(PieceRecord(file, offset, size, crc32c, spec))
    return pieces


def _decompress(data: bytes) -> bytes:
    most = _MOST_GROWTH * len(data) + _SMALL
    stream = zlib.decompressobj()
    content = stream.decompress(data, most)
    if not stream.eof:
        raise ValueError("its tensors are cut off")
    return content


def _piece_row(piece: PieceRecord) -> list[Any]:
    row: list[Any] = [piece.file, piece.offset, piece.size, piece.crc32c]
    return [*row, piece.spec] if piece.spec else row


def _are_sound(rows: list[Any], files: int) -> bool:
    """Returns whether rows are as `render` writes them; if not, `_entry` decides."""
    try:
        for _key, _dtype, shape, pieces in rows:
            for size in shape:
                if type(size) is not int:
                    return False
            for file, offset, size, crc32c, *_spec in pieces:
                if not (type(file) is type(offset) is type(size) is type(crc32c) is int):
                    return False
                if not (0 <= file < files and offset >= 0 and size >= 0):
                    return False
    except (ValueError, TypeError):
        return False
    return True


def _entry(row: list[Any], files: int) -> EntryRecord:
    key, dtype, shape, pieces = row
    records = tuple(
        PieceRecord(int(p[0]), int(p[1]), int(p[2]), int(p[3]), str(p[4]) if len(p) > 4 else "")
        for p in pieces
    )
    for p in records:
        if not 0 <= p.file < files or p.offset < 0 or p.size < 0:
            raise ManifestError(f"entry {key!r} points outside the checkpoint's files.")
    return EntryRecord(str(key), str(dtype), tuple(int(d) for d in shape), records)
