"""When a file is due: at most every five minutes, within its limit, and only for something new."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.db.outputs.conf import Block, Mode
from services.db.outputs.schedule import PAUSE, Record, begun, due, failed, passed, written

FREE = Block(Path("/f"))
LIMITED = Block(Path("/l"), mode=Mode.WRITE_LIMIT, period=3600, writes=2)
START = 1000.0


def test_nothing_is_written_in_the_first_five_minutes() -> None:
    record = begun(START)
    assert not due(FREE, record, START + PAUSE - 1, 5)
    assert due(FREE, record, START + PAUSE, 5)


def test_a_generation_that_did_not_advance_is_not_written_again() -> None:
    record = written(begun(START), START, 5)
    assert not due(FREE, record, START + 10 * PAUSE, 5)
    assert not due(FREE, record, START + 10 * PAUSE, 5, exiting=True)
    assert due(FREE, record, START + 10 * PAUSE, 6)


def test_when_the_process_ends_neither_pause_nor_limit_count() -> None:
    record = Record(wrote=START, period=START, generation=5, writes=99, failures=3, again=START + 1000)
    assert due(LIMITED, record, START + 1, 6, exiting=True)


@pytest.mark.parametrize(("block", "expected"), [(FREE, True), (LIMITED, False)])
def test_a_limit_counts_where_there_is_one(block: Block, expected: bool) -> None:
    record = begun(START)
    for generation in (1, 2):
        record = written(record, START, generation)
    assert due(block, record, START + PAUSE, 3) is expected


def test_a_new_period_begins_with_no_writes() -> None:
    record = written(written(begun(START), START, 1), START + PAUSE, 2)
    assert passed(LIMITED, record, START + LIMITED.period) == record
    later = passed(LIMITED, record, START + LIMITED.period + 1)
    assert (later.writes, later.period) == (0, START + LIMITED.period + 1)
    assert due(LIMITED, later, START + LIMITED.period + 1, 3)


def test_what_failed_is_tried_again_later_and_later() -> None:
    record, now, pauses = begun(START), START + PAUSE, []
    for _ in range(8):
        record = failed(record, now)
        assert not due(FREE, record, record.again - 0.1, 9)
        assert due(FREE, record, record.again, 9)
        pauses.append(record.again - now)
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]
    assert written(record, now, 9).failures == 0
