"""Sessions that only one process knows."""

from __future__ import annotations

from services.api.local_sessions import IDLE_LIMIT, LIMIT, LocalSessions


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_found_until_it_is_closed() -> None:
    sessions = LocalSessions()
    ref = sessions.open("root", pool=False)
    row = sessions.find(ref)
    assert row is not None
    assert (row["is_local_superuser"], row["auth_user_name"], row["pool"]) == (True, "root", False)
    assert sessions.close(ref)
    assert sessions.find(ref) is None
    assert not sessions.close(ref)


def test_an_idle_one_ends_and_one_in_use_stays() -> None:
    clock = Clock()
    sessions = LocalSessions(clock)
    idle, used = sessions.open("root", pool=False), sessions.open("root", pool=False)
    clock.now += IDLE_LIMIT - 1
    assert sessions.find(used) is not None
    clock.now += 2
    assert sessions.find(idle) is None
    assert sessions.find(used) is not None


def test_too_many_push_out_the_one_idle_longest() -> None:
    sessions = LocalSessions()
    first, second = sessions.open("root", pool=False), sessions.open("root", pool=False)
    assert sessions.find(first) is not None
    for _ in range(LIMIT - 1):
        sessions.open("root", pool=True)
    assert sessions.find(second) is None
    assert sessions.find(first) is not None
