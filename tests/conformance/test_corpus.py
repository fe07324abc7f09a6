"""What the original answers, request by request: nearly all of the corpus, of which no fewer cases may pass than did.

`python -m tests.conformance` measures all of it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import corpus
from tests.support.pool import PoolUnderTest, addresses

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.pool,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not corpus.FOLDER.exists(), reason=f"the corpus is not on this machine ({corpus.FOLDER})"),
]

FAST = (
    *("appliance/*", "auth/*", "blob/*", "bond/*", "class/*", "group/*", "host/*", "message/*", "misc/*"),
    *("network/*", "pool/*", "role/*", "secret/*", "session/*", "subject/*", "task/*"),
    *("event/token/*", "event/object/*", "event/snapshot/*", "event/counts/*"),
    *("vif/*", "vm/[!o]*", "vm/ops-*/*[0369]", "xe/*"),
    *("wire/calls/*", "wire/methods/*", "wire/encodings/*", "wire/json*", "wire/handler*", "wire/*xml/*"),
)
"""All but those that wait for what must not come, most of `event/*` and `wire/http/*`; storage, which has tests of its
own; and four in ten of the operations that VMs allow in each state.
"""

EITHER_WAY = {"vm/ops-Running/hvm-get_data_sources-51"}
"""Deviations that pass when the pool is quick: before the metrics service has looked at a new VM."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[corpus.Outcome]:
    options = ("--bare", "--hosts", "1", "--backend", "simulator", *addresses(worker_id, 121))
    pool = PoolUnderTest(tmp_path_factory.mktemp("bare") / "p", *options)
    corpus.install_driver(pool.directory)
    pool.up()
    try:
        yield corpus.replay(pool.url, pool.password, FAST)
    finally:
        pool.down()


def fast(cases: list[str]) -> set[str]:
    return {case for case in cases if any(fnmatch.fnmatchcase(case, pattern) for pattern in FAST)}


def test_every_case_that_passed_still_passes(outcome: corpus.Outcome) -> None:
    lost = fast(corpus.committed()) - outcome.passed
    assert not lost, f"no longer as the original:\n{corpus.details(outcome, lost)}\n{sorted(lost)}"


def test_no_deviation_is_listed_for_a_case_that_passes(outcome: corpus.Outcome) -> None:
    assert outcome.of("stale") <= EITHER_WAY


def test_the_list_of_passing_cases_is_in_order_and_without_repetitions() -> None:
    assert corpus.committed() == sorted(set(corpus.committed()))


def test_deviations_say_why() -> None:
    text = Path(corpus.DEVIATIONS).read_text()
    assert text.count("[[deviation]]") == text.count("\nreason = ") == text.count("\ncase = ")
