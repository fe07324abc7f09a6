"""Events as clients see them: members in a fixed order, ids and timestamps as text whatever the model says.

What many clients wait for is encoded once: a `Batch` keeps its answer for each codec and token, and a row keeps its
snapshot. A batch of thousands of rows is encoded in slices, so that other calls are served meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.api.edge.dispatcher import Answer
from services.api.events.changes import Changes, Kind, Section
from services.api.events.subscription import CLASSES
from services.api.events.tokens import Token
from services.api.records import row_fragment
from services.api.wire.codec import Codec
from shared.datamodel.types import STRING, RecordType
from shared.store import Row

SLICE: Final = 0.004
"""Seconds of encoding after which others get their turn."""

LARGE: Final = 256
"""Pieces of an answer from which on they are sent as they are: most of them are the rows' own."""

_LOOK: Final = 64
"""Events between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class _Template:
    """An event without its id, reference and snapshot. `after`: of `del`, which has no snapshot, the end of it all."""

    start: str
    id_to_ref: str
    after: str
    end: str


_TEMPLATES: dict[tuple[str, str, Kind], _Template] = {}


def _template(codec: Codec, cls: str, kind: Kind) -> _Template:
    known = _TEMPLATES.get((codec.name, cls, kind))
    if known is None:
        known = _TEMPLATES[codec.name, cls, kind] = _made_template(codec, cls, kind)
    return known


def _made_template(codec: Codec, cls: str, kind: Kind) -> _Template:
    text = codec.encoder(STRING)
    members = [
        codec.member("id", text("@id@")),
        codec.member("timestamp", text("0.0")),
        codec.member("class", text(cls.lower())),
        codec.member("operation", text(kind)),
        codec.member("ref", text("@ref@")),
    ]
    if kind != "del":
        members.append(codec.member("snapshot", b"@snapshot@"))
    start, _, rest = codec.record(members).decode().partition("@id@")
    id_to_ref, _, rest = rest.partition("@ref@")
    after, _, end = rest.partition("@snapshot@")
    return _Template(start, id_to_ref, after, end)


class _Pieces:
    """A batch's events in one codec, in pieces; remembers how far it has come."""

    def __init__(self, codec: Codec, sections: Sequence[Section]) -> None:
        self._codec = codec
        self._sections = iter(sections)
        self._section: Section | None = None
        self._done = 0
        start, self._between, self._close = codec.array([b"@item@", b"@item@"]).decode().split("@item@")
        self._end_of_last = ""
        self.array = [start.encode()]
        """The pieces, once everything is there: before each snapshot all that comes between it and the one before."""

    def go_on(self, seconds: float) -> bool:
        """Encodes for that long. Returns whether everything is there."""
        until = time.perf_counter() + seconds
        while True:
            if self._section is None or self._done >= len(self._section.refs):
                self._section, self._done = next(self._sections, None), 0
                if self._section is None:
                    self._close_array()
                    return True
            self._encode(self._section, slice(self._done, self._done + _LOOK))
            self._done += _LOOK
            if time.perf_counter() > until:
                return False

    def _close_array(self) -> None:
        if len(self.array) > 1:
            self.array[1] = self.array[1].removeprefix(self._between.encode())
        self.array.append(f"{self._end_of_last}{self._close}".encode())

    def _encode(self, section: Section, part: slice) -> None:
        codec, refs, rows = self._codec, section.refs[part], section.rows[part]
        template = _template(codec, section.cls, section.kind)
        if section.kind == "del":
            before = self._before(template, section.deleted[part], refs)
        elif section.kind == "mod":
            before = self._before(template, [row.modified for row in rows], refs)
        else:
            before = self._before_new(template, refs, rows)
        if self._end_of_last != template.end:
            before[0] = self._end_of_last.encode() + before[0].removeprefix(template.end.encode())
            self._end_of_last = template.end
        if section.kind == "del":
            self.array += before
            return
        pieces = before * 2
        pieces[0::2] = before
        name, cls = codec.name, section.cls
        pieces[1::2] = [row.fragments.get(name) or row_fragment(codec, cls, row) for row in rows]
        self.array += pieces

    def _before(self, template: _Template, times: Sequence[int], refs: Sequence[str]) -> list[bytes]:
        """What stands before each snapshot, from the end of the event before it."""
        start, middle, after = f"{template.end}{self._between}{template.start}", template.id_to_ref, template.after
        texts = _texts(self._codec, refs)
        return [f"{start}{at}{middle}{ref}{after}".encode() for at, ref in zip(times, texts, strict=True)]

    def _before_new(self, template: _Template, refs: Sequence[str], rows: Sequence[Row]) -> list[bytes]:
        """The same for `add`; kept with the row, as all clients begin with everything there is."""
        name = f"add {self._codec.name}"
        before: list[bytes | None] = [row.fragments.get(name) for row in rows]
        if None in before:
            made = self._before(template, [row.created for row in rows], refs)
            for row, text in zip(rows, made, strict=True):
                row.fragments[name] = text
            return made
        return before  # type: ignore[return-value]


def _texts(codec: Codec, refs: Sequence[str]) -> Sequence[str]:
    """References as they stand within a text of that codec, which usually leaves all of them as they are."""
    text = codec.encoder(STRING)
    start, _, end = text("@").decode().partition("@")

    def inner(value: str) -> str:
        return text(value).decode().removeprefix(start).removesuffix(end)

    together = "".join(refs)
    return refs if inner(together) == together else [inner(ref) for ref in refs]


class Counts:
    """`valid_ref_counts`: the rows of every class at one moment, encoded once for each codec."""

    def __init__(self, rows: Mapping[str, int]) -> None:
        self._rows = rows
        self._encoded: dict[str, bytes] = {}

    def encoded(self, codec: Codec) -> bytes:
        known = self._encoded.get(codec.name)
        if known is None:
            members = [codec.member(name, codec.native_int(count)) for name, count in self._rows.items()]
            known = self._encoded[codec.name] = codec.record(members)
        return known


class Batch:
    """What happened, for everybody who gets it. `changes` and `counts` are of the same moment; snapshots are of the
    moment they are encoded, and never older.
    """

    def __init__(self, changes: Changes, counts: Counts) -> None:
        self.changes = changes
        self._counts = counts
        self._begun: dict[str, _Pieces] = {}
        self._arrays: dict[str, list[bytes]] = {}
        self._answers: dict[tuple[str, Token], Answer] = {}
        self._encoding = asyncio.Lock()

    async def answer(self, codec: Codec, token: Token) -> Answer:
        """The answer of `event.from` that ends with this token."""
        known = self._answers.get((codec.name, token))
        if known is not None:
            return known
        if codec.name not in self._arrays:
            await self._encode(codec)
        return self._finish(codec, token)

    async def _encode(self, codec: Codec) -> None:
        """One client encodes, the others wait for it; if it goes away, the next one takes over where it was."""
        async with self._encoding:
            pieces = self._begun.setdefault(codec.name, _Pieces(codec, self.changes.sections))
            while codec.name not in self._arrays:
                if pieces.go_on(SLICE):
                    self._arrays[codec.name] = pieces.array
                else:
                    await asyncio.sleep(0)

    def _finish(self, codec: Codec, token: Token) -> Answer:
        members = [
            codec.member("events", b"@events@"),
            codec.member("valid_ref_counts", self._counts.encoded(codec)),
            codec.member("token", codec.encoder(STRING)(str(token))),
        ]
        start, _, end = codec.record(members).partition(b"@events@")
        pieces = [start, *self._arrays[codec.name], end]
        answer = Answer(pieces=pieces) if len(pieces) > LARGE else Answer(value=b"".join(pieces))
        self._answers[codec.name, token] = answer
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
        codec.member("snapshot", row_fragment(codec, cls, row)),
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
