"""Where the rows of a start come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.db.outputs.candidates import Found, Kind, Log, Place, order, places
from services.db.outputs.conf import Block
from services.db.outputs.dump_file import Origin

EMPTY = Log(term=0, generation=0)
LOG = Log(term=3, generation=100, pool="p")


def found(name: str, generation: int, kind: Kind = Kind.OUTPUT, origin: Origin | None = None) -> Found:
    return Found(Place(Path("/") / name, kind), generation, origin)


def names(log: Log, *files: Found) -> list[str]:
    return ["log" if isinstance(item, Log) else item.place.path.name for item in order(log, files)]


def test_files_are_looked_for_in_the_order_in_which_ties_are_settled() -> None:
    blocks = [Block(Path("/b/state.db")), Block(Path("/c/state.db"))]
    assert [str(place.path) for place in places(Path("/a"), blocks)] == [
        "/a/restore_db.db",
        "/a/ha_metadata.db",
        "/a/gen_metadata.db",
        "/b/state.db",
        "/c/state.db",
    ]


def test_with_nothing_at_all_there_is_nothing_to_read() -> None:
    assert names(EMPTY) == []


def test_without_a_log_the_highest_generation_wins() -> None:
    assert names(EMPTY, found("a", 5), found("b", 9), found("c", 7)) == ["b", "c", "a"]


def test_without_a_log_the_first_of_equal_ones_wins() -> None:
    assert names(EMPTY, found("staged", 5, Kind.STAGED), found("a", 5), found("b", 5)) == ["staged", "a", "b"]


@pytest.mark.parametrize(("generation", "expected"), [(99, ["log"]), (100, ["log"]), (101, ["a", "log"])])
def test_a_file_must_be_newer_than_the_log(generation: int, expected: list[str]) -> None:
    assert names(LOG, found("a", generation)) == expected
    assert names(LOG, found("a", generation, Kind.STAGED)) == expected


@pytest.mark.parametrize("log", [EMPTY, LOG])
def test_a_restore_beats_all_however_old_it_is(log: Log) -> None:
    assert names(log, found("restore_db.db", 1, Kind.RESTORE), found("a", 200))[:2] == ["restore_db.db", "a"]


def test_an_own_file_is_no_news_to_a_log_with_its_persistent_changes() -> None:
    """A power cut takes the volatile commits that the log had not synced and the file has."""
    own = Origin(pool="p", term=3, persistent=100)
    assert names(LOG, found("a", 140, origin=own)) == ["log"]


def test_an_own_file_is_used_when_the_log_has_lost_what_is_in_it() -> None:
    own = Origin(pool="p", term=3, persistent=130)
    assert names(LOG, found("a", 140, origin=own)) == ["a", "log"]


def test_an_own_file_of_an_earlier_term_does_not_bring_back_what_was_given_up_then() -> None:
    """A primary that was shut out had commits that its successor never saw."""
    own = Origin(pool="p", term=2, persistent=140)
    assert names(LOG, found("a", 140, origin=own)) == ["log"]
    assert names(EMPTY, found("a", 140, origin=own)) == ["a"]


def test_an_own_file_of_a_pool_that_the_host_has_left_is_nothing() -> None:
    former = Origin(pool="former", term=9, persistent=5000)
    assert names(LOG, found("a", 5000, origin=former)) == ["log"]
    assert names(Log(term=0, generation=0, pool="p"), found("a", 5000, origin=former)) == []
