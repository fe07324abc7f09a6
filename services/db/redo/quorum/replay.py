"""What counts of all that lies in the queue, in whatever order it came. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from services.db.redo.interface import LogRecord, Recovered
from services.db.redo.quorum import messages
from services.db.redo.quorum.messages import Begin, Claim, Commits, Damaged, Finish, Mark, Message, Rows, Turn
from shared import garbage
from shared.contracts.db import SnapshotRow

log = logging.getLogger("db.redo_log")

Read = TypeVar("Read")

ELSEWHERE: Final = "elsewhere"
"""Instead of a boot: what is volatile is never here, so a start from here is as one after the machine's restart."""


class Lost(Exception):
    """Commits that were acknowledged are not there any more; the text says which.

    `since`: as in `LogLost`.
    """

    def __init__(self, text: str, since: tuple[int, int] | None = None) -> None:
        super().__init__(text)
        self.since = since


class Position(NamedTuple):
    """The end of what counts: `number` is the last one, and `turn` is whose commits would be next.

    `turn`: None in a log that nobody has begun.
    """

    turn: Turn | None = None
    number: int = 0


class _Span(NamedTuple):
    """Numbers after `after` up to `upto` (None: the last there is) are those of `turn`.

    `begins`: false when nothing tells what came before.
    """

    turn: Turn
    after: int
    upto: int | None
    begins: bool


@dataclass(slots=True)
class Outcome:
    """`base`: the checkpoint that counts; None: the database was empty. `batches`: numbers after it, in order."""

    end: Position
    term: int
    generation: int
    base: Finish | None
    batches: list[list[LogRecord]]
    torn: int


@dataclass(slots=True)
class _Batch:
    parts: int
    pieces: dict[int, bytes] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return len(self.pieces) == self.parts


class Replay:
    """Takes messages in, each once or more often."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self.turns: set[Turn] = set()
        """Of everybody who has sent anything."""
        self._begins: dict[Turn, Begin] = {}
        self._finishes: dict[tuple[Turn, int], Finish] = {}
        self._batches: dict[tuple[Turn, int], _Batch] = {}
        self._rows: dict[str, dict[int, tuple[bool, bytes]]] = {}

    def take(self, body: bytes) -> None:
        """What is none of ours, or damaged, is passed over: the numbers tell whether it is missed."""
        self.count += 1
        self.bytes += len(body)
        try:
            head, payload = messages.decoded(body)
        except Damaged as error:
            log.error("passed over in the redo log's queue: %s", error)
            return
        match head:
            case Begin():
                self._begins[head.by] = head
            case Commits():
                batch = self._batches.setdefault((head.by, head.number), _Batch(head.parts))
                batch.pieces[head.part] = payload
            case Finish():
                self._finishes[head.by, head.number] = head
            case Rows():
                self._rows.setdefault(head.checkpoint, {})[head.part] = (head.last, payload)
        if not isinstance(head, Mark):
            self.turns.add(head.by)

    @property
    def term(self) -> int:
        """The highest that anybody has used."""
        return max((turn.term for turn in self.turns), default=0)

    @property
    def last(self) -> int:
        """The highest number in sight, whether it counts or not."""
        begins = (begin.number for begin in self._begins.values())
        return max([*begins, *(number for _, number in (*self._batches, *self._finishes))], default=0)

    # ---- what counts

    def end(self) -> Position:
        """Raises `Lost`."""
        return self.outcome(read=False).end

    def outcome(self, read: bool = True) -> Outcome:
        """`read`: with the records of the batches. Raises `Lost`."""
        spans = self._spans()
        if not spans:
            return Outcome(Position(), self.term, 0, None, [], 0)
        base = self._base(spans)
        spans = self._needed(spans, base)
        batches: list[list[LogRecord]] = []
        number, torn = spans[0].after if base is None else base.cut, 0
        for span in spans:
            number, torn = self._follow(span, number, batches if read else None)
        begun = (begin.generation for span in spans if (begin := self._begins.get(span.turn)) is not None)
        generation = max([*begun, base.header.generation if base is not None else 0])
        return Outcome(Position(spans[-1].turn, number), self.term, generation, base, batches, torn)

    def _spans(self) -> list[_Span]:
        """Oldest first: back from the last who began, each says whom it follows."""
        writers = {*self._begins, *(turn for turn, _ in self._finishes)}
        if not writers:
            if self._batches:
                raise Lost("nothing tells whose commits count")
            return []
        spans: list[_Span] = []
        turn: Turn | None = max(writers)
        upto: int | None = None
        while turn is not None:
            begin = self._begins.get(turn)
            if begin is None:
                spans.append(_Span(turn, -1, upto, False))
                break
            spans.append(_Span(turn, begin.number, upto, begin.empty))
            turn, upto = begin.follows, begin.number
        return spans[::-1]

    def _base(self, spans: list[_Span]) -> Finish | None:
        """The newest checkpoint that counts. None: none is needed."""
        found = [
            finish
            for span in spans
            for (turn, number), finish in self._finishes.items()
            if turn == span.turn and _within(number, span) and self._complete(finish.checkpoint)
        ]
        if found:
            return max(found, key=lambda finish: finish.number)
        if not spans[0].begins:
            raise Lost("the rows that its commits belong to are not there", self._rowless(spans))
        return None

    def _rowless(self, spans: list[_Span]) -> tuple[int, int] | None:
        """Term and generation of the last who began, if nobody has written anything that they follow."""
        turns = {span.turn for span in spans}
        begin = self._begins.get(spans[-1].turn)
        written = any(turn in turns for turn, _ in (*self._batches, *self._finishes))
        return None if begin is None or written else (begin.by.term, begin.generation)

    def _needed(self, spans: list[_Span], base: Finish | None) -> list[_Span]:
        if base is None:
            return spans
        needed = [span for span in spans if span.upto is None or span.upto > base.cut]
        if needed[0].after > base.cut:
            raise Lost(f"nobody tells of numbers {base.cut + 1} to {needed[0].after}")
        return needed

    def _follow(self, span: _Span, number: int, batches: list[list[LogRecord]] | None) -> tuple[int, int]:
        """From `number` to the end of the span. Returns the last that counts, and the bytes of one that does not."""
        while span.upto is None or number < span.upto:
            at = (span.turn, number + 1)
            batch = self._batches.get(at)
            if batch is not None and batch.whole:
                if batches is not None:
                    batches.append(_readable(messages.records, [batch.pieces[part] for part in range(batch.parts)]))
            elif at not in self._finishes:
                return self._torn(span, number)
            number += 1
        return number, 0

    def _torn(self, span: _Span, number: int) -> tuple[int, int]:
        later = [at for turn, at in (*self._batches, *self._finishes) if turn == span.turn and at > number + 1]
        if span.upto is not None or later:
            last = span.upto or max(later)
            raise Lost(f"of the numbers {number + 1} to {last}, written in term {span.turn.term}, some are missing")
        unfinished = self._batches.get((span.turn, number + 1))
        return number, sum(map(len, unfinished.pieces.values())) if unfinished is not None else 0

    def _complete(self, checkpoint: str) -> bool:
        parts = self._rows.get(checkpoint, {})
        return len(parts) - 1 in parts and parts[len(parts) - 1][0]

    # ---- for the database

    def recovered(self) -> Recovered:
        """As every redo log says it. Raises `Lost`."""
        outcome = self.outcome()
        found = Recovered(term=outcome.term, torn=outcome.torn)
        if outcome.end.turn is not None:
            found.boot = ELSEWHERE
        if outcome.base is not None:
            found.generation, found.requests = outcome.base.header.generation, dict(outcome.base.header.requests)
            found.rows = self._content(outcome.base)
        for record in _each(outcome.batches):
            if record.request:
                found.requests[record.request] = record.generation
            if record.generation <= found.generation:
                continue  # the checkpoint has it
            found.generation = record.generation
            found.records.append(record)
        found.generation = max(found.generation, outcome.generation)
        return found

    def _content(self, base: Finish) -> list[SnapshotRow]:
        parts = self._rows[base.checkpoint]
        with garbage.paused():
            rows = _readable(messages.content, [parts[part][1] for part in range(len(parts))])
        if len(rows) != base.header.rows:
            raise Lost(f"a checkpoint holds {len(rows)} rows of {base.header.rows}")
        return rows


def replaced(head: Message, by: Turn, base: Finish) -> bool:
    """Whether nobody needs the message any more, now that `base` counts; `by` is the writer that asks."""
    match head:
        case Begin() | Commits() | Finish():
            return head.number <= base.cut
        case Rows():
            return head.cut <= base.cut and head.checkpoint != base.checkpoint
        case Claim():
            return head.by < by
    return False


def _readable(read: Callable[[list[bytes]], list[Read]], pieces: list[bytes]) -> list[Read]:
    try:
        return read(pieces)
    except Damaged as error:
        raise Lost(str(error)) from error


def _within(number: int, span: _Span) -> bool:
    return number > span.after and (span.upto is None or number <= span.upto)


def _each(batches: Iterable[list[LogRecord]]) -> Iterator[LogRecord]:
    for batch in batches:
        yield from batch
