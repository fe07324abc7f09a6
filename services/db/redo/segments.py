"""Segments of the `file` log on disk: which of them count, up to where, and whether anything is missing.

A segment is made of checksummed frames (`frames.py`). The first is its header, which says what segment it follows and
how much of that one counts. So a segment is never repaired: what a failed write, a failed sync or a crash has left
behind its end is void as soon as a later segment says so, and a segment that could not be begun is void when a later
one does not follow it.

    {"boot":...,"term":3,"follows":117,"after":80,"counts":4711,"durable":4711}   the header
    {"generation":118,...}                                                        a commit (`LogRecord`)
    {"synced":5120}                                                               so many bytes are durable

A torn end of the last segment is what a crash leaves. Damage before something that was durable, or before a later
segment's claim, is none: then nobody may go on as if nothing had been there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import orjson

from services.db.redo.frames import decode, encode
from services.db.redo.interface import RedoLogError

NAME: Final = re.compile(r"redo-(\d{20})\.log")

_LARGEST_HEADER: Final = 1024
_HEADER_BEGINS: Final = b'{"boot":'
_SYNCED_BEGINS: Final = b'{"synced":'
_FRAME_HEAD: Final = 8


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """`follows`: the last generation before the segment.

    `after`: number of the segment before (-1: there is none). Its first `counts` bytes are all that counts of it; the
    first `durable` of those were on stable storage, behind them lies only what need not outlive the machine.
    `journal`: the log is the local one beside another, which says what was committed.
    """

    boot: str
    term: int
    follows: int = 0
    after: int = -1
    counts: int = 0
    durable: int = 0
    journal: bool = False
    version: int = 2


_header_decoder: Final = msgspec.json.Decoder(SegmentHeader)


@dataclass(slots=True)
class Segment:
    """`data`: as much of it as counts, as far as is known. `first`, `last`: nothing is before it, nothing follows."""

    number: int
    path: Path
    header: SegmentHeader
    data: bytes
    durable: int
    first: bool
    last: bool
    _end: int | None = None

    def records(self) -> Iterator[bytes]:
        """The bodies of its commits. Raises `RedoLogError` at damage that is no torn end."""
        end = 0
        for end, body in decode(self.data):  # noqa: B007 (its last value is where the damage begins)
            if not body.startswith((_HEADER_BEGINS, _SYNCED_BEGINS)):
                yield body
        self._end = end
        if end < self.durable:
            raise RedoLogError(f"{self.path.name} is damaged at byte {end}, and what follows counts")
        if self.last and (proof := _synced_beyond(self.data, end)):
            raise RedoLogError(f"{self.path.name} is damaged at byte {end}, and was durable up to byte {proof}")

    @property
    def end(self) -> int:
        """Where what can be read ends."""
        if self._end is None:
            self._end = max((end for end, _ in decode(self.data)), default=0)
        return self._end


def numbers(folder: Path) -> dict[int, Path]:
    """Every segment, also those that do not count, in order."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    return dict(sorted(found))


def path_of(folder: Path, number: int) -> Path:
    return folder / f"redo-{number:020d}.log"


def last(folder: Path) -> Segment | None:
    """The newest one that counts. Raises `RedoLogError` when its beginning is damaged."""
    paths = numbers(folder)
    for number in reversed(paths):
        data = paths[number].read_bytes()
        header = _header(data)
        if header is not None:
            return Segment(number, paths[number], header, data, 0, first=True, last=True)
        if len(data) > _LARGEST_HEADER:
            raise RedoLogError(f"{paths[number].name} is damaged at byte 0")
        # It could not be begun: nothing was ever appended to it.
    return None


def chain(folder: Path) -> list[Segment]:
    """The segments that count, oldest first. Raises `RedoLogError` for one whose beginning is damaged."""
    paths = numbers(folder)
    newest = last(folder)
    result = [] if newest is None else [newest]
    while result and (number := result[0].header.after) in paths:
        later = result[0].header
        data = paths[number].read_bytes()[: later.counts]
        header = _header(data)
        if header is None:
            raise RedoLogError(f"{paths[number].name} is damaged at byte 0, and later segments follow it")
        result[0] = replace(result[0], first=False)
        result.insert(0, Segment(number, paths[number], header, data, later.durable, first=True, last=False))
    return result


def _header(data: bytes) -> SegmentHeader | None:
    for _, body in decode(data):
        return _header_decoder.decode(body) if body.startswith(_HEADER_BEGINS) else None
    return None


def header_frame(header: SegmentHeader) -> bytes:
    return encode(orjson.dumps(msgspec.to_builtins(header)))


def synced_frame(offset: int) -> bytes:
    return encode(b'{"synced":%d}' % offset)


def _synced_beyond(data: bytes, end: int) -> int:
    """The largest offset behind `end` up to which the segment says that it is durable; 0: it says nothing."""
    proof, at = 0, data.find(_SYNCED_BEGINS, end)
    while at >= 0:
        for _, body in decode(data[at - _FRAME_HEAD : data.find(b"}", at) + 1]):
            proof = max(proof, orjson.loads(body)["synced"])
        at = data.find(_SYNCED_BEGINS, at + 1)
    return proof if proof > end else 0
