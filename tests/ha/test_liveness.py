from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.ha.liveness import NEVER, Seen, changes, heard, report, verdicts
from shared.contracts.ha import Heartbeat

LIMIT = 10.0


def beat(host: str = "a", seq: int = 0, boot: str = "boot") -> Heartbeat:
    return Heartbeat(host=host, boot=boot, seq=seq, interval=2.0, time=0.0)


def test_a_host_that_is_heard_is_live() -> None:
    table = heard({}, beat(), now=100)
    assert verdicts(table, ["a"], listening=0, now=100, limit=LIMIT) == {"a": True}
    assert verdicts(table, ["a"], listening=0, now=110, limit=LIMIT) == {"a": True}


def test_a_host_that_is_silent_for_longer_than_the_limit_is_not() -> None:
    table = heard({}, beat(), now=100)
    assert verdicts(table, ["a"], listening=0, now=110.1, limit=LIMIT) == {"a": False}


def test_a_host_that_was_never_heard_gets_the_same_time() -> None:
    assert verdicts({}, ["a"], listening=100, now=109, limit=LIMIT) == {"a": None}
    assert verdicts({}, ["a"], listening=100, now=111, limit=LIMIT) == {"a": False}


def test_silence_before_anybody_listened_says_nothing() -> None:
    table = heard({}, beat(), now=100)
    assert verdicts(table, ["a"], listening=200, now=205, limit=LIMIT) == {"a": None}
    assert verdicts(table, ["a"], listening=200, now=211, limit=LIMIT) == {"a": False}


def test_a_heartbeat_that_was_overtaken_counts_nothing() -> None:
    table = heard(heard({}, beat(seq=5), now=100), beat(seq=4), now=120)
    assert table["a"].at == 100
    assert heard(table, beat(seq=0, boot="another"), now=130)["a"].at == 130


def test_only_what_is_known_and_differs_is_written() -> None:
    verdict = {"up": True, "down": False, "unknown": None, "same": True, "removed": True}
    assert changes(verdict, {"up": False, "down": True, "unknown": True, "same": True}) == {"up": True, "down": False}


def test_the_report_gives_the_age_of_the_last_heartbeat() -> None:
    table = heard({}, beat(), now=100)
    lines = report({"b": None, "a": True}, table, now=103)
    assert [(line.host, line.live, line.age) for line in lines] == [("a", True, 3), ("b", False, NEVER)]


times = st.floats(min_value=0, max_value=1e6)


@given(at=times, listening=times, now=times)
def test_nobody_is_declared_dead_early(at: float, listening: float, now: float) -> None:
    table = {"a": Seen(boot="boot", seq=0, at=at)}
    verdict = verdicts(table, ["a"], listening, now, LIMIT)["a"]
    if verdict is False:
        assert now - at > LIMIT
        assert now - listening > LIMIT
    if now - at > LIMIT and now - listening > LIMIT:
        assert verdict is False
