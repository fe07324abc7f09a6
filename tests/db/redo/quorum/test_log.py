"""The quorum log on a real broker: what was confirmed comes back to whoever takes over, and to nobody else's harm."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pika.channel import Channel as PikaChannel

from pool import rabbitmq
from services.db.redo.interface import CheckpointHeader, LogFull, LogLost, LogRecord, RedoLogError, Uncertain, entry
from services.db.redo.quorum import link, messages
from services.db.redo.quorum.link import Link
from services.db.redo.quorum.log import Behind, QuorumRedoLog
from shared.contracts.db import RowModified, SnapshotRow
from tests.db.redo.quorum.conftest import Queue, append, checkpoint, commit, rows
from tests.db.redo.quorum.proxy import Proxy

pytestmark = pytest.mark.broker

BLOCKED = b"\x01\x00\x00\x00\x00\x00\x07\x00\x0a\x00\x3c\x02no\xce"
UNBLOCKED = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x3d\xce"
"""The broker's frames when an alarm goes on and off."""


def counted(log: QuorumRedoLog) -> list[int]:
    return [record.generation for record in log.recover().records]


# ---- appending and recovering


def test_what_was_appended_comes_back_on_another_machine(queue: Queue) -> None:
    log = queue.begun()
    append(log, 1)
    append(log, 2, 3)
    log.append([commit(4, durable=False)], sync=False)
    log.append([commit(5, durable=False), commit(6)], sync=True)
    fields = {"name_label": "é\u2028\x00", "tags": ["a"], "other_config": {"k": "v"}, "MTU": 2**62}
    special = LogRecord(generation=7, term=1, changes=[RowModified(cls="network", ref="r1", fields=fields)], task="t")
    log.append([entry(special, 6)], sync=True)
    log.close()
    found = queue.log().recover()
    assert [record.generation for record in found.records] == [1, 2, 3, 6, 7], "what is volatile is not kept"
    assert (found.records[0], found.records[-1]) == (commit(1).record, special)
    assert (found.generation, found.term, found.boot) == (7, 1, "elsewhere")


def test_reading_takes_nothing_away(queue: Queue) -> None:
    log = queue.begun()
    append(log, 1, 2)
    for _ in range(3):
        assert queue.found() == [1, 2]
    append(log, 3)
    assert queue.found() == [1, 2, 3]


def test_a_large_batch_is_one(queue: Queue) -> None:
    log = queue.begun()
    log.append([commit(generation, size=700_000) for generation in range(1, 6)], sync=True)
    append(log, 6)
    assert queue.found() == [1, 2, 3, 4, 5, 6]


def test_a_log_that_was_never_begun_is_empty(queue: Queue) -> None:
    found = queue.log().recover()
    assert (found.generation, found.term, found.boot, found.records) == (0, 0, "", [])
    log = queue.begun()
    log.close()
    assert queue.log().recover().term == 1


def test_hundreds_of_starts_leave_the_queue_as_it_is(queue: Queue) -> None:
    log = queue.begun()
    append(log, 1)
    own, commits = 2, 1
    _wait_for(lambda: _messages(queue) == own + commits)
    for _ in range(5):
        queue.found()
    _wait_for(lambda: _messages(queue) == own + commits)  # what was read is put back after its reader has gone


def _messages(queue: Queue) -> int:
    channel = queue.channel()
    try:
        return int(channel.queue_declare(queue.name, passive=True).method.message_count)
    finally:
        channel.connection.close()


# ---- one writer


def test_an_older_writer_is_shut_out_by_name_of_the_term(queue: Queue) -> None:
    old = queue.begun()
    append(old, 1)
    new = queue.begun()
    for _ in range(2):
        with pytest.raises(RedoLogError, match="fenced by term 2"):
            append(old, 2)
        with pytest.raises(RedoLogError, match="fenced by term 2"):
            old.begin(1, 1)
    append(new, 3)
    assert queue.found() == [1, 3]


def test_a_commit_whose_confirm_is_late_is_not_acknowledged_once_somebody_took_over(queue: Queue) -> None:
    """It is in the queue, so the next one finds it: nobody was told that it is not there, nor that it is."""
    proxy = queue.proxy()
    old = queue.begun(queue.log(url=proxy.url, patience=20))
    append(old, 1)
    new = queue.log()
    new.recover()
    proxy.hold(answers=True)
    with ThreadPoolExecutor(1) as thread:
        appended = thread.submit(append, old, 2)
        assert proxy.held.wait(5), "the confirm is on its way"
        with pytest.raises(Behind, match="went on to number 2"):
            new.begin(1, 2)
        new.close()
        proxy.release()
        with pytest.raises(Uncertain, match="fenced by term 2"):
            appended.result(20)
    assert counted(queue.log()) == [1, 2]


def test_of_two_that_take_over_at_once_the_second_is_refused(queue: Queue) -> None:
    append(queue.begun(), 1)
    first, second = queue.log(), queue.log()
    assert counted(first) == counted(second) == [1]
    second.begin(1, 2)
    with pytest.raises(RedoLogError, match="fenced by term 2"):
        first.begin(1, 2)
    append(second, 2)
    assert queue.found() == [1, 2]


def test_who_is_not_primary_reads_the_log_and_leaves_it_alone(queue: Queue) -> None:
    writer = queue.begun()
    append(writer, 1)
    roles = ["standby"]
    other = QuorumRedoLog(queue.url, queue=queue.name, patience=3, settle=0, primary=lambda: roles[0] == "primary")
    assert counted(other) == [1]
    other.begin(1, 1)
    other.begin(1, 2)
    assert other.idle
    append(writer, 2)
    roles[0] = "primary"
    with pytest.raises(Behind):
        other.begin(1, 3)
    other.close()
    assert queue.found() == [1, 2]


@pytest.mark.parametrize("meanwhile", [True, False])
def test_who_was_primary_and_is_again_knows_that_commits_were_made_without_it(queue: Queue, meanwhile: bool) -> None:
    roles = ["primary"]
    log = queue.begun(
        QuorumRedoLog(queue.url, queue=queue.name, patience=3, settle=0, primary=lambda: roles[0] == "primary")
    )
    append(log, 1)
    roles[0] = "standby"
    log.begin(1, 2)
    assert log.idle
    roles[0] = "primary"
    if meanwhile:
        append(queue.begun(), 2)
        with pytest.raises(Behind):
            log.begin(2, 3)
    else:
        log.begin(2, 3)
        with pytest.raises(LogFull, match="no rows"):
            append(log, 3)
    log.close()


def test_the_database_must_not_be_behind_its_log(queue: Queue) -> None:
    append(queue.begun(), 1, 2)
    log = queue.log()
    log.recover()
    with pytest.raises(RedoLogError, match="commits up to generation 2, and the database ends at 1"):
        log.begin(1, 2)


def test_a_log_that_was_passed_over_for_a_while_gets_all_rows_first(queue: Queue) -> None:
    append(queue.begun(), 1)
    log = queue.log()
    log.recover()
    log.begin(50, 9)
    with pytest.raises(LogFull):
        append(log, 51)
    assert not log.roomy
    checkpoint(log, 50, ["r1", "r50"]).finish()
    append(log, 51)
    log.close()
    found = queue.log().recover()
    assert ([row.ref for row in found.rows], [record.generation for record in found.records]) == (["r1", "r50"], [51])


# ---- outcomes that nobody knows


def test_a_commit_that_was_cut_off_before_its_confirm_does_not_count_once_the_writer_goes_on(queue: Queue) -> None:
    proxy = queue.proxy()
    log = queue.begun(queue.log(url=proxy.url))
    append(log, 1)
    _cut_before_the_confirm(proxy, log, 2)
    append(log, 3)
    assert queue.found() == [1, 3]


def _cut_before_the_confirm(proxy: Proxy, log: QuorumRedoLog, generation: int) -> None:
    """The broker has it. The writer can ask again at once, and so knows that it does not count."""
    proxy.hold(answers=True)
    with ThreadPoolExecutor(1) as thread:
        appended = thread.submit(append, log, generation)
        assert proxy.held.wait(5)
        proxy.cut()
        with pytest.raises(RedoLogError, match="cannot be written") as caught:
            appended.result(10)
    assert not isinstance(caught.value, Uncertain)


def test_a_commit_that_was_cut_off_counts_when_its_writer_can_only_start_anew(queue: Queue) -> None:
    proxy = queue.proxy()
    log = queue.begun(queue.log(url=proxy.url, patience=0.5, decision=0.0))
    append(log, 1)
    proxy.hold(answers=True, new=True)
    with pytest.raises(Uncertain, match="does not tell whether it has a commit"):
        append(log, 2)
    log.close()
    append(queue.begun(), 3)
    assert queue.found() == [1, 2, 3]


def test_a_commit_that_comes_long_after_it_was_given_up_does_not_count(queue: Queue) -> None:
    proxy = queue.proxy()
    log = queue.begun(queue.log(url=proxy.url))
    append(log, 1)
    proxy.hold(requests=True)
    with ThreadPoolExecutor(1) as thread:
        appended = thread.submit(append, log, 2)
        assert proxy.held.wait(5)
        proxy.cut()
        with pytest.raises(RedoLogError, match="cannot be written"):
            appended.result(10)
    append(log, 3)
    before = _messages(queue)
    proxy.release()
    _wait_for(lambda: _messages(queue) > before)
    append(log, 4)
    assert queue.found() == [1, 3, 4]


def _wait_for(true: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_half_a_batch_is_none(queue: Queue) -> None:
    log = queue.begun()
    append(log, 1)
    assert log._turn is not None
    parts = messages.commits(log._turn, 2, [commit(2, size=3_000_000)])
    channel = queue.channel()
    for part in parts[:-1]:
        channel.basic_publish("", queue.name, part)
    channel.connection.close()
    log.close()
    found = queue.log().recover()
    assert [record.generation for record in found.records] == [1]
    assert found.torn > 2_000_000


# ---- a broker that does not answer, or not now


def test_a_broker_that_hangs_is_waited_for_no_longer_than_told(queue: Queue) -> None:
    proxy = queue.proxy()
    log = queue.begun(queue.log(url=proxy.url, patience=0.5, decision=0.0))
    append(log, 1)
    proxy.hold(requests=True, answers=True, new=True)
    began = time.monotonic()
    with pytest.raises(Uncertain, match=r"has not answered for 0\.5 s"):
        append(log, 2)
    with pytest.raises(RedoLogError, match=r"has not answered for 0\.5 s"):
        log.begin(2, 1)
    with pytest.raises(RedoLogError, match=r"has not answered for 0\.5 s"):
        queue.log(url=proxy.url, patience=0.5).recover()
    assert time.monotonic() - began < 6
    with pytest.raises(RedoLogError, match="not ready"):
        append(log, 2)
    proxy.cut()
    proxy.release()
    log.begin(2, 1)
    append(log, 3)
    assert queue.found() == [1, 3]


def test_a_connection_that_is_lost_while_nothing_is_written_is_made_anew_unnoticed(queue: Queue) -> None:
    proxy = queue.proxy()
    log = queue.begun(queue.log(url=proxy.url))
    append(log, 1)
    proxy.cut()
    assert log._link is not None
    _wait_for(lambda: log._link is not None and log._link.lost)
    append(log, 2)
    assert queue.found() == [1, 2]


def test_an_idle_connection_lives(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "HEARTBEAT", 1)
    proxy = queue.proxy()
    log = queue.begun(queue.log(url=proxy.url))
    while proxy.heard.acquire(blocking=False):
        pass
    for _ in range(5):  # two for each second: the broker drops who is silent for two
        assert proxy.heard.acquire(timeout=5)
    append(log, 1)
    assert proxy.connections == 1


def test_an_alarm_refuses_at_once_and_says_so(queue: Queue) -> None:
    proxy = queue.proxy()
    log = queue.begun(queue.log(url=proxy.url))
    append(log, 1)
    proxy.inject(BLOCKED)
    assert log._link is not None
    _wait_for(lambda: log._link is not None and log._link.blocked)
    with pytest.raises(RedoLogError, match="memory or disk alarm"):
        append(log, 2)
    log.begin(2, 1)
    append(log, 3)
    assert queue.found() == [1, 3]


def test_a_killed_broker_comes_back_with_everything_that_was_confirmed(broker_node: rabbitmq.Node) -> None:
    queue = Queue(broker_node.url, "redo-log")
    log = queue.begun(QuorumRedoLog(broker_node.url, patience=5))
    acknowledged: list[int] = []

    def restart() -> None:
        _wait_for(lambda: len(acknowledged) > 10)
        rabbitmq.kill9(broker_node)
        rabbitmq.start(broker_node.directory)

    killer = threading.Thread(target=restart)
    killer.start()
    with pytest.raises(RedoLogError, match=r"cannot be (written|begun)"):
        _append_for_ever(log, acknowledged)
    killer.join()
    last = len(acknowledged) + 1
    append(log, last + 1)
    assert queue.found() == [*acknowledged, last + 1]
    log.close()


def _append_for_ever(log: QuorumRedoLog, acknowledged: list[int]) -> None:
    while True:
        generation = len(acknowledged) + 1
        append(log, generation)
        acknowledged.append(generation)


# ---- what others do to the queue


@pytest.mark.parametrize("operation", ["queue_delete", "queue_purge"])
def test_a_log_that_others_emptied_is_written_anew_before_anything_is_acknowledged(
    queue: Queue, operation: str
) -> None:
    log = queue.begun()
    append(log, 1, 2)
    channel = queue.channel()
    getattr(channel, operation)(queue.name)
    channel.connection.close()
    if operation == "queue_delete":
        with pytest.raises(RedoLogError, match="has no queue"):
            append(log, 3)
    log.begin(3, 1)
    with pytest.raises(LogFull, match="no rows"):
        append(log, 4)
    assert not log.roomy
    with pytest.raises(LogLost, match="the rows that its commits belong to are not there") as lost:
        queue.found()
    assert lost.value.since == (1, 3), "who has that has everything: nothing was acknowledged since"
    made = checkpoint(log, 4, ["r1", "r2", "r4"])
    made.finish()
    assert log.roomy
    append(log, 5)
    log.close()
    found = queue.log().recover()
    assert ([row.ref for row in found.rows], [record.generation for record in found.records]) == (
        ["r1", "r2", "r4"],
        [5],
    )


def test_commits_that_somebody_took_out_are_missed(queue: Queue) -> None:
    log = queue.begun()
    for generation in range(1, 5):
        append(log, generation)
    _take_out(queue, 4)
    with pytest.raises(LogLost, match="some are missing"):
        queue.found()
    log.begin(5, 1)
    with pytest.raises(LogFull):
        append(log, 6)


def _take_out(queue: Queue, count: int) -> None:
    """As a consumer would that does not belong there."""
    channel = queue.channel()
    for taken, (method, _, _) in enumerate(channel.consume(queue.name, inactivity_timeout=5)):
        assert method is not None
        if taken + 1 == count:
            channel.basic_ack(method.delivery_tag)
            break
    channel.connection.close()


def test_a_start_from_a_log_that_lost_commits_may_go_on_with_rows_that_another_log_has(queue: Queue) -> None:
    old = queue.begun()
    for generation in range(1, 5):
        append(old, generation)
    _take_out(queue, 4)
    old.close()
    log = queue.log()
    with pytest.raises(LogLost):
        log.recover()
    log.begin(4, 2)
    checkpoint(log, 4, ["r1", "r2", "r3", "r4"]).finish()
    append(log, 5)
    log.close()
    found = queue.log().recover()
    assert (len(found.rows), [record.generation for record in found.records]) == (4, [5])


def test_a_queue_of_another_kind_is_not_touched(queue: Queue) -> None:
    channel = queue.channel()
    channel.queue_declare(queue.name, durable=True)
    channel.basic_publish("", queue.name, b"somebody's")
    channel.connection.close()
    log = queue.log()
    log.recover()
    with pytest.raises(RedoLogError, match="a queue of that name is none of a redo log"):
        log.begin(0, 1)
    assert _messages(queue) == 1


def test_wrong_credentials_and_a_vhost_that_is_none_are_named(queue: Queue) -> None:
    account, _, place = queue.url.removeprefix("amqp://").rpartition("@")
    user = account.partition(":")[0]
    with pytest.raises(RedoLogError, match="refused the user or password"):
        queue.log(url=f"amqp://{user}:wrong@{place}").recover()
    with pytest.raises(RedoLogError, match="vhost"):
        queue.log(url=f"amqp://{account}@{place.rpartition('/')[0]}/nowhere").recover()
    with pytest.raises(RedoLogError, match="Connection refused"):
        queue.log(url="amqp://a:b@127.0.0.1:1/pool").recover()


# ---- checkpoints


def test_a_checkpoint_replaces_what_was_before_it_and_the_queue_gets_short(queue: Queue) -> None:
    log = queue.begun()
    for generation in range(1, 30):
        append(log, generation)
    assert log.backlog > 29 * 100
    made = log.checkpoint()
    made.begin()
    append(log, 30)
    content = rows(*(f"r{number}" for number in range(1, 31)))
    made.hold(CheckpointHeader(generation=30, term=1, rows=30, requests={"q": 7}))
    made.write(content)
    append(log, 31)
    made.finish()
    append(log, 32)
    made.tidy()
    assert _messages(queue) < 8
    append(log, 33)
    log.close()
    found = queue.log().recover()
    assert found.rows == content
    assert [record.generation for record in found.records] == [31, 32, 33]
    assert (found.requests, found.generation) == ({"q": 7}, 33)


def test_a_start_goes_on_after_a_checkpoint_that_was_not_cleaned_up_after(queue: Queue) -> None:
    log = queue.begun()
    append(log, 1)
    checkpoint(log, 1, ["r1"]).finish()
    log.close()
    for term in (2, 3):
        log = queue.log()
        found = log.recover()
        assert [row.ref for row in found.rows] == ["r1"]
        log.begin(found.generation, term)
        append(log, term)
        log.close()
    assert queue.found() == [2, 3]


@pytest.mark.parametrize("when", ["not written", "written in part", "written"])
def test_a_checkpoint_that_is_abandoned_leaves_nothing(queue: Queue, when: str) -> None:
    log = queue.begun()
    append(log, 1)
    before = _messages(queue)
    made = log.checkpoint()
    made.begin()
    made.hold(CheckpointHeader(generation=1, term=1, rows=1))
    if when == "written":
        made.write(rows("r1"))
    if when == "written in part":
        with pytest.raises(ZeroDivisionError):
            made.write(_broken())
    made.abandon()
    append(log, 2)
    assert _messages(queue) == before + 1
    assert queue.found() == [1, 2]


def _broken() -> Iterator[SnapshotRow]:
    incompressible = random.Random(1).randbytes(3_000_000).hex()
    yield from rows(*(incompressible[begin : begin + 1000] for begin in range(0, len(incompressible), 1000)))
    yield from rows(str(1 // 0))


def test_a_checkpoint_during_which_a_commit_failed_does_not_count(queue: Queue) -> None:
    proxy = queue.proxy()
    log = queue.begun(queue.log(url=proxy.url))
    append(log, 1)
    made = checkpoint(log, 1, ["r1"])
    _cut_before_the_confirm(proxy, log, 2)
    with pytest.raises(RedoLogError, match="failed while a checkpoint was written"):
        made.finish()
    made.abandon()
    append(log, 3)
    assert queue.found() == [1, 3]


def test_a_checkpoint_whose_last_word_was_cut_off_does_not_count_once_it_was_abandoned(queue: Queue) -> None:
    """Other rows that would have taken the place of these: a restore."""
    proxy = queue.proxy()
    log = queue.begun(queue.log(url=proxy.url, patience=0.5, decision=0.0))
    append(log, 1)
    made = log.checkpoint()
    made.hold(CheckpointHeader(generation=100, term=2, rows=1))
    made.write(rows("other"))
    proxy.hold(answers=True, new=True)
    with pytest.raises(Uncertain):
        made.finish()
    with pytest.raises(RedoLogError, match="has not answered"):
        made.abandon()
    proxy.cut()
    proxy.release()
    made.abandon()
    append(log, 2)
    assert queue.found() == [1, 2]


def test_other_rows_take_the_place_of_all_that_was(queue: Queue) -> None:
    log = queue.begun()
    append(log, 1)
    made = log.checkpoint()
    made.hold(CheckpointHeader(generation=100, term=2, rows=1))
    made.write(rows("other"))
    made.finish()
    log.begin(100, 2)
    made.tidy()
    append(log, 101)
    log.close()
    found = queue.log().recover()
    assert ([row.ref for row in found.rows], [record.generation for record in found.records]) == (["other"], [101])
    assert found.term == 2


def test_a_queue_with_many_messages_wants_a_checkpoint_and_at_last_takes_no_more(queue: Queue) -> None:
    log = queue.begun(queue.log(full=12))
    acknowledged: list[int] = []
    with pytest.raises(LogFull, match="12 messages"):
        _append_for_ever(log, acknowledged)
    assert not log.roomy
    made = checkpoint(log, acknowledged[-1], ["r1"])
    made.finish()
    made.tidy()
    assert log.roomy
    append(log, 100)
    assert queue.found() == [100]


def test_readers_end_without_being_cancelled(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled one would hold what it has read while the next reader is active already."""
    cancelled: list[object] = []
    monkeypatch.setattr(PikaChannel, "basic_cancel", lambda *arguments, **_: cancelled.append(arguments))
    log = queue.begun()
    append(log, 1)
    reading = Link(queue.url, "reads", 5)
    reading.read(queue.name, lambda _, __: None).to_end()
    reading.close()
    assert queue.found() == [1]
    assert not cancelled
