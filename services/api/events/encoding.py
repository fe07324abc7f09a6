"""Events as clients see them: members in a fixed order, ids and timestamps as text whatever the model says.

What many clients wait for is encoded once: a `Batch` keeps its answer for each codec and token, and a row keeps its
snapshot. A batch of thousands of rows is encoded in slices, so that other calls are served meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from services.api import implicit
from services.api.events.changes import Changes, Kind, Section
from services.api.events.subscription import CLASSES
from services.api.events.tokens import Token
from services.api.wire.codec import Codec
from shared.datamodel.types import STRING, RecordType
from shared.store import Row

SLICE: Final = 0.004
"""Seconds of encoding after which others get their turn."""

_LOOK: Final = 64
"""Events between two looks at the clock."""


def _array_frame(codec: Codec) -> tuple[bytes, bytes, bytes]:
    """What stands before the items of an array, between two and after them."""
    mark = b"@item@"
    start, between, end = codec.array([mark, mark]).split(mark)
    return start, between, end


_Template = tuple[bytes, bytes, bytes, bytes]
_TEMPLATES: dict[tuple[str, str, Kind], _Template] = {}


def _template(codec: Codec, cls: str, kind: Kind) -> _Template:
    """What stands before the id, between id and reference, between reference and snapshot, and after it."""
    known = _TEMPLATES.get((codec.name, cls, kind))
    if known is None:
        known = _TEMPLATES[codec.name, cls, kind] = _made_template(codec, cls, kind)
    return known


def _made_template(codec: Codec, cls: str, kind: Kind) -> _Template:
    marks = ("@id@", "@ref@", "@snapshot@")
    text = codec.encoder(STRING)
    members = [
        codec.member("id", text(marks[0])),
        codec.member("timestamp", text("0.0")),
        codec.member("class", text(cls.lower())),
        codec.member("operation", text(kind)),
        codec.member("ref", marks[1].encode()),
    ]
    if kind != "del":
        members.append(codec.member("snapshot", marks[2].encode()))
    start, _, rest = codec.record(members).partition(marks[0].encode())
    between, _, rest = rest.partition(marks[1].encode())
    before_snapshot, _, end = rest.partition(marks[2].encode())
    return start, between, before_snapshot, end


class _Pieces:
    """The pieces of a batch's events in one codec; remembers how far it has come."""

    def __init__(self, codec: Codec, sections: Iterable[Section]) -> None:
        self._codec = codec
        self._sections = iter(sections)
        self._section: Section | None = None
        self._done = 0
        self._open, self._between, self._close = _array_frame(codec)
        self.pieces: list[bytes] = []

    def array(self) -> list[bytes]:
        """The whole array, once everything is there."""
        pieces = self.pieces
        if pieces:
            pieces[0] = pieces[0].removeprefix(self._between)
        return [self._open, *pieces, self._close]

    def go_on(self, seconds: float) -> bool:
        """Encodes for that long. Returns whether everything is there."""
        until = time.perf_counter() + seconds
        while True:
            if self._section is None:
                self._section = next(self._sections, None)
                self._done = 0
                if self._section is None:
                    return True
            elif self._done >= len(self._section):
                self._section = None
            else:
                (self._gone if self._section.kind == "del" else self._present)(self._section)
                self._done += _LOOK
                if time.perf_counter() > until:
                    return False

    def _present(self, section: Section) -> None:
        codec, cls, is_new = self._codec, section.cls, section.kind == "add"
        start, between, before_snapshot, end = _template(codec, cls, section.kind)
        start = self._between + start
        text, append, fragment = codec.encoder(STRING), self.pieces.append, implicit.row_fragment
        for ref, row in section.rows[self._done : self._done + _LOOK]:
            generation = row.created if is_new else row.modified
            append(b"%b%d%b%b%b" % (start, generation, between, text(ref), before_snapshot))
            append(fragment(codec, cls, row))
            append(end)

    def _gone(self, section: Section) -> None:
        start, between, end, _ = _template(self._codec, section.cls, section.kind)
        start, text = self._between + start, self._codec.encoder(STRING)
        for ref, generation in section.deleted[self._done : self._done + _LOOK]:
            self.pieces.append(b"%b%d%b%b%b" % (start, generation, between, text(ref), end))


class Batch:
    """What happened, for everybody who gets it. `changes` and `counts` are of the same moment; snapshots are of the
    moment they are encoded, and never older.
    """

    def __init__(self, changes: Changes, counts: Mapping[str, int]) -> None:
        self.changes = changes
        self._counts = counts
        self._begun: dict[str, _Pieces] = {}
        self._bodies: dict[str, list[bytes]] = {}
        self._answers: dict[tuple[str, Token], bytes] = {}
        self._encoding = asyncio.Lock()

    async def answer(self, codec: Codec, token: Token) -> bytes:
        """The answer of `event.from` that ends with this token."""
        known = self._answers.get((codec.name, token))
        if known is not None:
            return known
        if codec.name not in self._bodies:
            await self._encode(codec)
        return self._finish(codec, token)

    async def _encode(self, codec: Codec) -> None:
        """One client encodes, the others wait for it; if it goes away, the next one takes over where it was."""
        async with self._encoding:
            pieces = self._begun.setdefault(codec.name, _Pieces(codec, self.changes.sections))
            while codec.name not in self._bodies:
                if pieces.go_on(SLICE):
                    self._bodies[codec.name] = pieces.array()
                else:
                    await asyncio.sleep(0)

    def _finish(self, codec: Codec, token: Token) -> bytes:
        events = b"@events@"
        counts = codec.record([codec.member(name, codec.native_int(count)) for name, count in self._counts.items()])
        members = [
            codec.member("events", events),
            codec.member("valid_ref_counts", counts),
            codec.member("token", codec.encoder(STRING)(str(token))),
        ]
        start, _, end = codec.record(members).partition(events)
        answer = self._answers[codec.name, token] = b"".join([start, *self._bodies[codec.name], end])
        return answer


def encode(codec: Codec, number: int, timestamp: str, cls: str, kind: Kind, ref: str, row: Row) -> bytes:
    """An event of `event.next`: numbered, stamped, and with the last state of what was deleted."""
    text = codec.encoder(STRING)
    members = [
        codec.member("id", text(str(number))),
        codec.member("timestamp", text(timestamp)),
        codec.member("class", text(cls.lower())),
        codec.member("operation", text(kind)),
        codec.member("ref", text(ref)),
        codec.member("snapshot", implicit.row_fragment(codec, cls, row)),
    ]
    return codec.record(members)


def relayed(codec: Codec, answer: Any) -> bytes:
    """What another host answered in JSON, in that codec: the batch of `event.from`, or the events of `event.next`."""
    if isinstance(answer, list):
        return codec.array([_relayed_event(codec, event) for event in answer])
    counts = [codec.member(name, codec.native_int(count)) for name, count in answer["valid_ref_counts"].items()]
    return codec.record(
        [
            codec.member("events", codec.array([_relayed_event(codec, event) for event in answer["events"]])),
            codec.member("valid_ref_counts", codec.record(counts)),
            codec.member("token", codec.encoder(STRING)(answer["token"])),
        ]
    )


def _relayed_event(codec: Codec, event: dict[str, Any]) -> bytes:
    members = [
        codec.member(name, codec.encoder(RecordType(CLASSES[event["class"]]) if name == "snapshot" else STRING)(value))
        for name, value in event.items()
    ]
    return codec.record(members)
