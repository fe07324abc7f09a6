"""A host's vote for a new coordinator."""

from __future__ import annotations

import pytest

from services.api.ballot import VALID, Ballot
from shared.errors import ApiError


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ballot(clock: Clock) -> Ballot:
    return Ballot(clock)


def refused(error: pytest.ExceptionInfo[ApiError]) -> str:
    assert error.value.code == "HA_ABORT_NEW_MASTER"
    return str(error.value.params[0])


def test_a_host_agrees_to_one_coordinator_at_a_time(ballot: Ballot) -> None:
    ballot.propose("10.0.0.2")
    ballot.propose("10.0.0.2")
    with pytest.raises(ApiError) as error:
        ballot.propose("10.0.0.3")
    assert "agreed to 10.0.0.2" in refused(error)
    ballot.commit("10.0.0.2")


def test_a_proposal_that_nobody_came_back_to_counts_for_ten_minutes(ballot: Ballot, clock: Clock) -> None:
    ballot.propose("10.0.0.2")
    clock.now += VALID
    with pytest.raises(ApiError):
        ballot.propose("10.0.0.3")
    clock.now += 1
    ballot.propose("10.0.0.3")
    ballot.commit("10.0.0.3")


def test_proposing_again_makes_it_count_longer(ballot: Ballot, clock: Clock) -> None:
    ballot.propose("10.0.0.2")
    clock.now += VALID
    ballot.propose("10.0.0.2")
    clock.now += VALID
    with pytest.raises(ApiError):
        ballot.propose("10.0.0.3")


def test_only_what_was_agreed_to_can_be_committed_and_only_once(ballot: Ballot) -> None:
    with pytest.raises(ApiError) as error:
        ballot.commit("10.0.0.2")
    assert "to nobody" in refused(error)
    ballot.propose("10.0.0.2")
    with pytest.raises(ApiError) as error:
        ballot.commit("10.0.0.3")
    assert "to 10.0.0.2 as coordinator, not to 10.0.0.3" in refused(error)
    ballot.commit("10.0.0.2")
    with pytest.raises(ApiError):
        ballot.commit("10.0.0.2")


def test_an_abort_gives_the_vote_back(ballot: Ballot) -> None:
    ballot.abort()
    ballot.propose("10.0.0.2")
    ballot.abort()
    ballot.propose("10.0.0.3")
