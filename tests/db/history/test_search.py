"""Entries are found by what they are about, who made them and when, page by page, in either order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.db.disk import Disk
from services.db.history import search, segments
from services.db.history.index import Block
from services.db.history.segments import Segments
from shared.contracts.db_history import FieldChange, HistoryRequest, ObjectChange
from shared.errors import ApiError
from shared.logs import track_id
from tests.db.history.commits import entry

SESSION = "OpaqueRef:session"
SBD = ObjectChange(cls="VBD", ref="OpaqueRef:vbd", kind="mod", fields=[FieldChange(name="VM", old="a", new="b")])


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Segments]:
    """Entries 1 to 600 in several segments; each third is of OpaqueRef:0, and so on; 500 also changed a VBD."""
    kept = Segments(tmp_path, 16 * segments.SMALLEST_SEGMENT, 30, Disk())
    kept.open()
    for number in range(1, 601):
        one = entry(
            number,
            f"OpaqueRef:{number % 3}",
            user="mary" if number > 300 else "root",
            session=track_id(SESSION) if number % 100 == 0 else "trackid=other",
            task=f"OpaqueRef:task-{number}",
            call="VM.start" if number % 10 == 0 else "VM.set_name_label",
        )
        if number == 500:
            one = msgspec.structs.replace(one, changes=[*one.changes, SBD])
        kept.append([one])
        kept.keep_limits(2000.0)
    assert len(kept.all()) > 2
    yield kept
    kept.close()


def ask(found: Segments, **request: Any) -> list[int]:
    """Generations of everything, over as many pages as it takes."""
    generations: list[int] = []
    token = ""
    while True:
        page = search.page(found, HistoryRequest(token=token, **request))
        generations += [one.generation for one in page.entries]
        token = page.token
        if not page.more:
            return generations


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"ref": "OpaqueRef:1"}, range(1, 601, 3)),
        ({"uuid": "uuid of OpaqueRef:2"}, range(2, 601, 3)),
        ({"cls": "VBD"}, [500]),
        ({"cls": "VM", "field": "VM"}, []),
        ({"cls": "VBD", "field": "VM"}, [500]),
        ({"field": "name_label", "user": "mary"}, range(301, 601)),
        ({"field": "name"}, []),
        ({"session": SESSION}, range(100, 601, 100)),
        ({"session": track_id(SESSION)}, range(100, 601, 100)),
        ({"task": "OpaqueRef:task-77"}, [77]),
        ({"task": "VM.start", "user": "root"}, range(10, 301, 10)),
        ({"since": 1590.0}, range(590, 601)),
        ({"since": 1100.0, "until": 1102.5}, range(100, 103)),
        ({"since_generation": 40, "until_generation": 42}, range(40, 43)),
        ({"ref": "OpaqueRef:0", "since_generation": 590}, [591, 594, 597, 600]),
        ({"ref": "OpaqueRef:nobody"}, []),
    ],
)
def test_a_filter_finds_what_fits_in_both_orders(
    found: Segments, request_: dict[str, Any], expected: list[int]
) -> None:
    forward = list(expected)
    for limit in (7, 1000):
        assert ask(found, oldest_first=True, limit=limit, **request_) == forward
        assert ask(found, limit=limit, **request_) == forward[::-1]


def test_of_a_commit_only_what_was_asked_for_is_told(found: Segments) -> None:
    [one] = search.page(found, HistoryRequest(since_generation=500, until_generation=500)).entries
    assert [change.cls for change in one.changes] == ["VM", "VBD"]
    [one] = search.page(found, HistoryRequest(cls="VBD")).entries
    assert [change.cls for change in one.changes] == ["VBD"]


def test_a_page_has_no_more_than_it_may_and_the_next_follows_it(found: Segments) -> None:
    first = search.page(found, HistoryRequest(limit=10))
    assert ([one.generation for one in first.entries], first.more) == (list(range(600, 590, -1)), True)
    found.append([entry(601)])
    second = search.page(found, HistoryRequest(limit=10, token=first.token))
    assert [one.generation for one in second.entries] == list(range(590, 580, -1))


def test_whoever_follows_gets_what_comes_later(found: Segments) -> None:
    page = search.page(found, HistoryRequest(oldest_first=True, user="mary", limit=1000))
    assert not page.more
    again = search.page(found, HistoryRequest(oldest_first=True, user="mary", token=page.token))
    assert (again.entries, again.token, again.more) == ([], page.token, False)
    found.append([entry(601, user="mary"), entry(602, user="root")])
    last = search.page(found, HistoryRequest(oldest_first=True, user="mary", token=page.token))
    assert [one.generation for one in last.entries] == [601]


def test_a_search_that_takes_long_is_continued_by_the_next_page(
    found: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PATIENCE", 0.0)
    pages = 0
    token, generations = "", []
    while True:
        page = search.page(found, HistoryRequest(ref="OpaqueRef:1", token=token))
        pages += 1
        generations += [one.generation for one in page.entries]
        token = page.token
        if not page.more:
            break
    assert (len(generations), generations[0]) == (200, 598)
    assert pages > 3


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "²"])
def test_a_token_that_is_none_is_refused(found: Segments, token: str) -> None:
    with pytest.raises(ApiError) as refused:
        search.page(found, HistoryRequest(token=token))
    assert refused.value.description == ["INVALID_VALUE", "token", token]


def test_a_segment_that_goes_while_it_is_searched_is_passed_over(
    found: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, [_, gone, left, *_] = found.reading, found.all()

    def removed(segment: segments.Segment) -> tuple[int, bytes]:
        found.keep_limits(gone.newest + 30 * segments.DAY + 0.5)
        return reading(segment)

    monkeypatch.setattr(found, "reading", removed)
    assert ask(found, oldest_first=True) == list(range(left.first + 1, 601))


def test_only_blocks_that_name_the_object_are_read(found: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    read, blocks = found.read, 0

    def counted(descriptor: int, block: Block) -> list[bytes]:
        nonlocal blocks
        blocks += 1
        return read(descriptor, block)

    monkeypatch.setattr(found, "read", counted)
    assert ask(found, task="OpaqueRef:task-77") == [77]
    assert blocks == 1
    assert ask(found, ref="OpaqueRef:nobody") == []
    assert blocks == 1
