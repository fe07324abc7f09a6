"""`QuorumRedoLog`: the queue, and who writes to it. The package's docstring says why it is as it is."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from services.db.redo.interface import Checkpoint, Entry, LogFull, LogLost, Recovered, RedoLogError, Uncertain
from services.db.redo.quorum import messages
from services.db.redo.quorum.checkpoint import Postponed, QuorumCheckpoint
from services.db.redo.quorum.link import Link, LinkError, Outgoing, Returned, Unsent
from services.db.redo.quorum.messages import Begin, Claim, Finish, Message, Turn
from services.db.redo.quorum.replay import Lost, Position, Replay
from services.db.redo.quorum.trimming import trim
from shared.contracts.db import RowChange

log = logging.getLogger("db.redo_log")

QUEUE: Final = "redo-log"
PATIENCE: Final = 5.0
DECISION: Final = 30.0
SETTLE: Final = 1.5
"""Seconds before a queue that is new counts on its files: a broker that is killed earlier may come back without its
leader (RabbitMQ 3.10 writes down within a second which members it has)."""
RETRY: Final = 0.5
"""Seconds between attempts to hear what became of a message."""
ROOMY: Final = 20_000
FULL: Final = 60_000
"""Messages that the queue holds when a checkpoint should, and must, be made: a reader can hold 65,535."""


class Behind(RedoLogError):
    """The log has commits that this process has not: started anew, it has them."""


class QuorumRedoLog:
    """`url`: of the broker, with the pool's vhost. `patience`: seconds that the broker may take for one step;
    `decision`: for which it is asked what became of a message that was not confirmed.

    The log is the pool's, not the host's. `primary` says whether this process is to write it: it takes over with the
    first term that it begins as primary. Until then it is `idle`: it has read the log, and leaves it alone.
    `on_behind` hears of a takeover that failed because the log has commits that this process has not.
    """

    kind = "quorum"

    def __init__(
        self,
        url: str,
        *,
        queue: str = QUEUE,
        patience: float = PATIENCE,
        decision: float = DECISION,
        settle: float = SETTLE,
        primary: Callable[[], bool] = lambda: True,
        on_behind: Callable[[str], None] = lambda why: None,
        checkpoint_bytes: int = 64 * 1024 * 1024,
        full: int = FULL,
    ) -> None:
        self.bytes = 0
        self.syncs = 0
        self._url = url
        self._queue = queue
        self._patience = patience
        self._decision = decision
        self._settle = settle
        self._primary = primary
        self._on_behind = on_behind
        self._checkpoint_bytes = checkpoint_bytes
        self._full = full
        self._writer = uuid.uuid4().hex[:12]
        self._turns = 0
        self._link: Link | None = None
        self._turn: Turn | None = None
        """While this process is the writer and knows what the log holds."""
        self._end: Position | None = None
        """Of what is known to count; None: nothing is known."""
        self._found = Recovered()
        """Without its rows and records."""
        self._begun = (0, 0)
        self._shut_out = 0
        """The term that shuts out this one and all before."""
        self._writes = False
        """Since it took over."""
        self._replaced = False
        """Whether rows have changed that it holds, and it was not told."""
        self._based = False
        """Whether the log has the rows that the next commit belongs to."""
        self._messages = _Count()
        self._backlog = 0
        self._checkpoint: QuorumCheckpoint | None = None

    @property
    def backlog(self) -> int:
        return self._backlog

    @property
    def roomy(self) -> bool:
        if self.idle:
            return True
        room = self._backlog < self._checkpoint_bytes and self._messages.value < min(ROOMY, self._full)
        return room and (self._based or self._turn is None)

    @property
    def idle(self) -> bool:
        return not self._writes

    def generations(self, changes: Sequence[RowChange]) -> int:
        return 1

    # ---- reading

    def recover(self) -> Recovered:
        """Raises `LogLost` when commits are not there any more; `begin` has all rows written anew then."""
        began = time.monotonic()
        try:
            link = self._linked()
            if not self._exists(link):
                self._end, self._found = Position(), Recovered()
                return Recovered()
            with self._reading(link) as (read, replay):
                read()
            found = replay.recovered()
            self._end = replay.end()
        except LinkError as error:
            self._give_up()
            raise self._failed("cannot be read", error) from error
        except Lost as lost:
            self._end, self._found = Position(None, replay.last), Recovered(term=replay.term)
            raise LogLost(self._says(f"has lost commits: {lost}"), lost.since) from lost
        self._found = Recovered(generation=found.generation, term=found.term, boot=found.boot)
        self._backlog = replay.bytes
        log.info(
            "read the queue",
            extra={"messages": replay.count, "records": len(found.records), "seconds": time.monotonic() - began},
        )
        return found

    def _linked(self) -> Link:
        """A connection that works, as far as is known. Raises `LinkError`."""
        if self._link is not None and self._link.lost:
            self._drop()
        if self._link is None:
            self._link = Link(self._url, f"redo log {self._writer}", self._patience)
        return self._link

    def open_link(self) -> Link:
        """One more, for a checkpoint. Raises `LinkError`."""
        return Link(self._url, f"redo log {self._writer}, checkpoint", self._patience)

    def _exists(self, link: Link) -> bool:
        try:
            link.do("queue_declare", self._queue, passive=True)
        except LinkError as error:
            if error.code == 404 and "no queue" in str(error):
                return False
            raise
        return True

    @contextmanager
    def _reading(self, link: Link) -> Iterator[tuple[Callable[[], None], Replay]]:
        """Nobody else can read meanwhile. What is called takes in all that is there by then. Raises `LinkError`."""
        replay = Replay()
        reader = link.read(self._queue, lambda _, body: replay.take(body))

        def read() -> None:
            reader.to_end()
            self._messages.value = replay.count

        yield read, replay
        reader.close()

    # ---- who writes

    def begin(self, generation: int, term: int) -> None:
        """Takes the log over from whoever wrote it before, also from an earlier turn of this process; or lets go of it,
        where this process is not primary or goes on with a term that it has not begun.

        Raises `RedoLogError`: "fenced" when a later writer has it; `Behind`. Where the log has lost what it held, or
        was passed over for a while, nothing is appended before a checkpoint.
        """
        if self._end is None:
            self.recover()
        self._lay_down()
        if not self._primary() or (not self._writes and term <= self._found.term):
            self._replaced |= self._writes  # rows go on without it
            self._writes = False
            return
        if term <= self._shut_out:
            raise self._fenced(self._shut_out)
        try:
            self._take_over(generation, term)
        except LinkError as error:
            self._give_up()
            raise self._failed("cannot be begun", error) from error
        except RedoLogError as error:
            self._give_up()
            if isinstance(error, Behind):
                self._on_behind(str(error))
            raise
        self._begun, self._writes = (generation, term), True

    def _take_over(self, generation: int, term: int) -> None:
        link = self._linked()
        created = self._declare(link)
        self._turns += 1
        turn = Turn(term, self._turns, self._writer)
        exchange = self._exchange(turn)
        link.do("exchange_declare", exchange, exchange_type="direct", durable=True)
        link.do("queue_bind", self._queue, exchange, "")
        link.publish([self._addressed(turn, messages.encoded(Claim(by=turn)))])
        with self._reading(link) as (read, replay):
            self._shut_others_out(link, turn, read, replay)
            begin = self._begin_after(replay, turn, generation)
            self._send(turn, [messages.encoded(begin)])
        if created:
            time.sleep(self._settle)
        self._turn, self._end = turn, Position(turn, begin.number)
        self._messages.add(1)

    def _declare(self, link: Link) -> bool:
        """Whether it is new."""
        exists = self._exists(link)
        arguments: dict[str, object] = {"x-queue-type": "quorum", "x-single-active-consumer": True}
        if link.version >= (4, 0):
            arguments["x-delivery-limit"] = -1  # else what was read a few times is dropped
        try:
            link.do("queue_declare", self._queue, durable=True, arguments=arguments)
        except LinkError as error:
            what = f"the broker ({link.broker}) makes no quorum queue of it, which RabbitMQ 3.8 and later do"
            if error.code == 406:
                what = "a queue of that name is none of a redo log: delete it, and all rows are written to a new one"
            raise LinkError(f"{what}: {error}", error.code) from error
        if link.broker.startswith("RabbitMQ") and link.version < (3, 8):
            raise LinkError(f"{link.broker} has no quorum queues: RabbitMQ 3.8 and later have")
        return not exists

    def _shut_others_out(self, link: Link, turn: Turn, read: Callable[[], None], replay: Replay) -> None:
        """Nobody of an earlier term can write any more, and what they have written has been read.

        An exchange that is gone takes nothing, and what it took before the mark that ends a reading has been read.
        Raises `RedoLogError` where somebody of this term or a later one is there.
        """
        shut_out: set[str] = set()
        while True:
            read()
            rivals = {rival for rival in replay.turns if rival.writer != self._writer}
            if any(rival.term >= turn.term for rival in rivals):
                self._shut_out = max(rival.term for rival in rivals)
                link.do("exchange_delete", self._exchange(turn))
                raise self._fenced(self._shut_out)
            new = {self._exchange(rival) for rival in rivals} - shut_out
            if not new:
                return
            for exchange in sorted(new):
                link.do("exchange_delete", exchange)
            shut_out |= new

    def _begin_after(self, replay: Replay, turn: Turn, generation: int) -> Begin:
        """Decides what counts of all that came before. Raises `RedoLogError`."""
        known = self._end or Position()
        try:
            end: Position | None = replay.end()
        except Lost as lost:
            log.error("%s", self._says(f"has lost commits: {lost}; all rows are written to it anew"))
            end = None
        ours = known.turn is not None and known.turn.writer == self._writer
        if end is not None and end != known and not self._undecided(end, known):
            if end.turn is not None and (end.turn != known.turn or end.number > known.number):
                raise Behind(self._says(f"went on to number {end.number} since it was read: start again"))
            log.error("%s", self._says(f"ends at number {end.number} of {known.number}: all rows are written anew"))
            end = None
        if end is None:
            self._based = False
            return Begin(by=turn, number=known.number, generation=generation)
        if not ours:
            self._based = self._continues(known, generation, turn.term)
        if self._replaced:
            self._based = False
        empty = known.turn is None and generation == 0
        return Begin(by=turn, number=known.number, generation=generation, follows=known.turn, empty=empty)

    def _undecided(self, end: Position, known: Position) -> bool:
        """Whether what is beyond `known` is of this process, and never was confirmed."""
        return end.turn is not None and end.turn.writer == self._writer and end.number >= known.number

    def _continues(self, known: Position, generation: int, term: int) -> bool:
        """Whether rows that this process brings are those that the log ends with. Raises `RedoLogError`."""
        if generation < self._found.generation:
            what = f"has commits up to generation {self._found.generation}, and the database ends at {generation}"
            raise RedoLogError(self._says(what))
        return term == self._found.term + 1 if known.turn is not None else generation == 0

    def _lay_down(self) -> None:
        self._turn = None
        if self._checkpoint is not None:
            self._checkpoint.missed = True
            self._checkpoint = None

    def _unready(self) -> RedoLogError:
        return self._fenced(self._shut_out) if self._shut_out else RedoLogError(self._says("is not ready"))

    def _fenced(self, term: int) -> RedoLogError:
        return RedoLogError(self._says(f"is not written here any more: fenced by term {term}"))

    # ---- writing

    def append(self, entries: Sequence[Entry], sync: bool) -> None:
        """What is volatile has no place here, and is not kept."""
        durable = [entry for entry in entries if entry.record.durable]
        if not sync or not durable:
            return
        if self._turn is not None and (self._link is None or self._link.lost):
            log.warning("%s", self._says("has lost its connection: beginning anew"))
            self.begin(*self._begun)
        if self.idle:
            raise LogFull(self._says("is not written by this process yet"))
        if self._turn is None or self._end is None:
            raise self._unready()
        if not self._based:
            raise LogFull(self._says("has no rows yet that commits could follow"))
        if self._messages.value >= self._full:
            raise LogFull(self._says(f"has {self._messages.value} messages"))
        bodies = messages.commits(self._turn, self._end.number + 1, durable)
        self._write(bodies)
        size = sum(map(len, bodies))
        self.bytes += size
        self._backlog += size

    def _write(self, bodies: Sequence[bytes]) -> None:
        """The next number. Raises `RedoLogError`; `Uncertain`: the next `begin`, whoever's it is, decides whether it
        counts.
        """
        turn, end = self._turn, self._end
        if turn is None or end is None:
            raise self._unready()
        try:
            self._send(turn, bodies)
        except LinkError as error:
            self._lay_down()
            if isinstance(error, Unsent | Returned) or _no_exchange(error):
                self._why_not(turn, error)
            self._decide(error)
        self._end = Position(turn, end.number + 1)
        self._messages.add(len(bodies))

    def _send(self, turn: Turn, bodies: Sequence[bytes]) -> None:
        """They are in the queue, and were before anybody who took over has read it. Raises `LinkError`."""
        link = self._linked()
        link.publish([self._addressed(turn, body) for body in bodies])
        try:
            link.do("exchange_declare", self._exchange(turn), passive=True)
        except LinkError as error:
            raise LinkError(str(error)) from error  # whatever it says, the message was confirmed
        self.syncs += 1

    def _why_not(self, turn: Turn, error: LinkError) -> NoReturn:
        """Nothing is in the queue. An exchange that has gone was deleted by who took over: says by whom, if he lets us
        read.
        """
        if _no_exchange(error):
            try:
                with self._reading(self._linked()) as (read, replay):
                    read()
                self._shut_out = replay.term if replay.term > turn.term else 0
            except LinkError as why:
                log.warning("%s", self._says(f"does not say who writes it now: {why}"))
        self._give_up()
        if self._shut_out:
            raise self._fenced(self._shut_out) from error
        raise self._failed("cannot be written", error) from error

    def _decide(self, error: LinkError) -> NoReturn:
        """By beginning anew: then what was sent does not count, whether it has come, or comes later, or never."""
        self._give_up()
        deadline = time.monotonic() + self._decision
        while True:
            try:
                self.begin(*self._begun)
                break
            except RedoLogError as why:
                if self._shut_out or time.monotonic() > deadline:
                    raise Uncertain(self._says(f"does not tell whether it has a commit ({error}): {why}")) from error
            time.sleep(RETRY)
        raise self._failed("cannot be written", error) from error

    def _addressed(self, turn: Turn, body: bytes) -> Outgoing:
        return Outgoing(self._exchange(turn), "", body)

    def _exchange(self, turn: Turn) -> str:
        return f"{self._queue}.term-{turn.office}"

    # ---- checkpoints

    def checkpoint(self) -> Checkpoint:
        """Before it has taken over it notes that there was one, and the first commit asks for another."""
        return Postponed(self) if self.idle else QuorumCheckpoint(self, self._queue)

    def replaced(self) -> None:
        self._replaced = True

    def checkpoint_begins(self, checkpoint: QuorumCheckpoint) -> None:
        """From here on, commits are behind it. Raises `RedoLogError`."""
        self._checkpoint = checkpoint

    def now(self) -> tuple[Turn, int]:
        """Who writes, and the last number. Raises `RedoLogError`."""
        if self._turn is None or self._end is None:
            raise self._unready()
        return self._turn, self._end.number

    def checkpoint_counts(self, checkpoint: QuorumCheckpoint) -> Finish:
        """Raises `RedoLogError`: whether it counts is decided by the next `begin`."""
        if checkpoint.missed or checkpoint.turn != self._turn:
            raise RedoLogError(self._says("failed while a checkpoint was written"))
        turn, number = self.now()
        finish = Finish(
            by=turn,
            number=number + 1,
            checkpoint=checkpoint.name,
            cut=checkpoint.cut,
            header=checkpoint.header,
        )
        try:
            self._write([messages.encoded(finish)])
        except Uncertain:
            checkpoint.unknown = True
            raise
        self._based, self._replaced, self._checkpoint, self._backlog = True, False, None, 0
        return finish

    def forget_unconfirmed(self) -> None:
        """What was sent and not confirmed does not count from here on. Raises `RedoLogError`."""
        self.begin(*self._begun)

    def trim(self, unneeded: Callable[[Message], bool]) -> None:
        """Removes messages, on a connection of its own. Raises `RedoLogError`."""
        try:
            link = self.open_link()
            try:
                count = trim(link, self._queue, unneeded)
            finally:
                link.close()
        except LinkError as error:
            raise self._failed("keeps what is not needed any more", error) from error
        self._messages.add(-count)

    # ---- failures and the end

    def close(self) -> None:
        self._turn = None
        if self._link is not None:
            self._link.close()
            self._link = None

    def _give_up(self) -> None:
        """What is still on its way is not sent any more, and nothing is appended before the next `begin`."""
        self._turn = None
        self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            self._link.drop()
            self._link = None

    def _failed(self, what: str, error: Exception) -> RedoLogError:
        return RedoLogError(self._says(f"{what}: {error}"))

    def _says(self, what: str) -> str:
        return f"the redo log in the queue {self._queue} {what}"


def _no_exchange(error: LinkError) -> bool:
    return error.code == 404 and "no exchange" in str(error)


class _Count:
    """Of the messages in the queue; both the writer and the checkpoint's clean-up change it."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.value += count
