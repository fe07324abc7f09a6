"""Finding entries: by the index of each segment the few blocks that may hold some, then line by line."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from services.db.history import blocks, index, pace
from services.db.history.blocks import Damaged, Head
from services.db.history.index import Block
from services.db.history.segments import Segment, Segments
from shared.contracts.db_history import HistoryEntry, HistoryPage, HistoryRequest, ObjectChange
from shared.errors import ApiError
from shared.logs import track_id

log = logging.getLogger("db.history")

LARGEST_PAGE: Final = 1000
LARGEST_BYTES: Final = 2 * 1024 * 1024
"""Of a page's lines: a message on the bus is not to be huge."""
PATIENCE: Final = 2.0
"""Seconds for one page; what is not found by then is for the next one."""


@dataclass(frozen=True, slots=True)
class Query:
    """A request, made ready. `keys`, `words`: a block, or a line, that has none of one group is of no interest.

    `begin`, `end`: numbers of entries, the end excluded.
    """

    request: HistoryRequest
    keys: tuple[tuple[bytes, ...], ...]
    words: tuple[tuple[bytes, ...], ...]
    begin: int
    end: int

    def wants(self, head: Head) -> bool:
        asked = self.request
        return (
            head.first < self.end
            and head.first + head.count > self.begin
            and (asked.since is None or head.until >= asked.since)
            and (asked.until is None or head.since <= asked.until)
            and (asked.since_generation is None or head.high >= asked.since_generation)
            and (asked.until_generation is None or head.low <= asked.until_generation)
        )

    def names(self, records: bytes) -> bool:
        """Whether they may name what is wanted; quick."""
        return all(any(key in records for key in group) for group in self.keys)

    def spells(self, line: bytes) -> bool:
        return all(any(word in line for word in group) for group in self.words)


def prepare(request: HistoryRequest, end: int) -> Query:
    """`end`: number of the next entry. Raises INVALID_VALUE for a token that is none."""
    keys: list[tuple[bytes, ...]] = []
    words: list[tuple[bytes, ...]] = []
    asked = request
    session = asked.session if asked.session.startswith("trackid=") else track_id(asked.session)
    if asked.session:
        request = msgspec.structs.replace(request, session=session)
    for kind, value in (("r", asked.ref), ("u", asked.uuid), ("s", session), ("o", asked.user)):
        if value:
            keys.append((index.key(kind, value),))
            words.append((_word(value),))
    if asked.cls and asked.field:
        keys.append((index.key("p", f"{asked.cls}.{asked.field}"),))
    elif asked.cls or asked.field:
        keys.append((index.key("c", asked.cls) if asked.cls else index.key("f", asked.field),))
    words += [(_word(value),) for value in (asked.cls, asked.field) if value]
    if asked.task:
        keys.append((index.key("t", asked.task), index.key("m", asked.task)))
        words.append((_word(asked.task),))
    begin = 0
    if asked.token:
        if not asked.token.isascii() or not asked.token.isdecimal():
            raise ApiError("INVALID_VALUE", "token", asked.token)
        number = int(asked.token)
        begin, end = (number, end) if asked.oldest_first else (0, min(number, end))
    return Query(request, tuple(keys), tuple(words), begin, end)


def _word(value: str) -> bytes:
    return msgspec.json.encode(value)


def fitting(request: HistoryRequest, entry: HistoryEntry) -> HistoryEntry | None:
    """The entry with those changes that are asked for; None if there is nothing in it."""
    asked = request
    if (
        (asked.session and entry.session != asked.session)
        or (asked.user and entry.user != asked.user)
        or (asked.task and asked.task not in (entry.task, entry.call))
        or (asked.since is not None and entry.time < asked.since)
        or (asked.until is not None and entry.time > asked.until)
        or (asked.since_generation is not None and entry.generation < asked.since_generation)
        or (asked.until_generation is not None and entry.generation > asked.until_generation)
    ):
        return None
    if not (asked.ref or asked.uuid or asked.cls or asked.field):
        return entry
    changes = [fit for change in entry.changes if (fit := _change(asked, change)) is not None]
    return msgspec.structs.replace(entry, changes=changes) if changes else None


def _change(asked: HistoryRequest, change: ObjectChange) -> ObjectChange | None:
    if (
        (asked.ref and change.ref != asked.ref)
        or (asked.uuid and change.uuid != asked.uuid)
        or (asked.cls and change.cls != asked.cls)
    ):
        return None
    if not asked.field:
        return change
    fields = [field for field in change.fields if field.name == asked.field]
    return msgspec.structs.replace(change, fields=fields) if fields else None


def page(segments: Segments, request: HistoryRequest) -> HistoryPage:
    """Blocks, reading files; for a thread that is not the loop's. Raises INVALID_VALUE, `OSError`."""
    end = segments.next
    query = prepare(request, end)
    limit = max(1, min(request.limit, LARGEST_PAGE))
    deadline = time.monotonic() + PATIENCE
    entries: list[HistoryEntry] = []
    size, at = 0, query.begin if request.oldest_first else query.end
    for number, line in _lines(segments, query):
        at = number + 1 if request.oldest_first else number
        if line is not None:
            entry = _read(number, line)
            found = fitting(query.request, entry) if entry is not None else None
            if found is not None:
                entries.append(found)
                size += len(line)
        if len(entries) >= limit or size >= LARGEST_BYTES or time.monotonic() > deadline:
            return HistoryPage(entries=entries, token=str(at), more=True)
    if request.oldest_first:
        return HistoryPage(entries=entries, token=str(max(end, query.begin)))
    return HistoryPage(entries=entries)


def _read(number: int, line: bytes) -> HistoryEntry | None:
    try:
        return blocks.read_entry(line)
    except Damaged as damage:
        log.error("entry %d of the history cannot be read: %s", number, damage)
        return None


def _lines(segments: Segments, query: Query) -> Iterator[tuple[int, bytes | None]]:
    """Numbers and lines of entries that may be wanted, in the order asked for. None: as far as that there is none."""
    forward = query.request.oldest_first
    everything = segments.all()
    if not everything:
        return
    ends = [segment.first for segment in everything[1:]] + [query.end]
    places = list(zip(everything, ends, strict=True))
    for segment, end in places if forward else reversed(places):
        if segment.first >= query.end or end <= query.begin:
            continue
        yield from _lines_of(segments, segment, query)
        yield (min(end, query.end) - 1 if forward else max(segment.first, query.begin)), None


def _lines_of(segments: Segments, segment: Segment, query: Query) -> Iterator[tuple[int, bytes | None]]:
    forward = query.request.oldest_first
    try:
        descriptor, records = segments.reading(segment)
    except FileNotFoundError:
        return  # it was the oldest, and is over the limit now
    try:
        for block in pace.slowly(_blocks(records, query), 1):
            try:
                lines = segments.read(descriptor, block)
            except Damaged as damage:
                log.error("a block of %s is passed over: %s", segment.path.name, damage)
                continue
            numbered = list(enumerate(lines, block.head.first))
            for number, line in numbered if forward else reversed(numbered):
                if query.begin <= number < query.end and query.spells(line):
                    yield number, line
            last = block.head.first + (block.head.count - 1 if forward else 0)
            if query.begin <= last < query.end:
                yield last, None
    finally:
        os.close(descriptor)


def _blocks(records: bytes, query: Query) -> list[Block]:
    if not query.names(records):
        return []
    found = [
        block
        for block in index.blocks(records)
        if query.wants(block.head) and all(block.names(group) for group in query.keys)
    ]
    return found if query.request.oldest_first else found[::-1]
