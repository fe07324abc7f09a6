"""What the original answers, request by request: no case that passed may differ now.

A sample is replayed. A case's kind is its name without the last part, such as `vm/ops-Running` or `wire/encodings`: of
each kind every sixth is taken, at least one; of the storage's, whose disks take time and which has tests of its own,
every twelfth. `python -m tests.conformance` replays all cases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.conformance import corpus
from tests.support.pool import PoolUnderTest, addresses

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.pool,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not corpus.FOLDER.exists(), reason=f"the corpus is not on this machine ({corpus.FOLDER})"),
]

STORAGE = ("sr", "vbd", "vdi")
EVERY, EVERY_OF_STORAGE = 6, 12
WAITING = {"wire/http/two-tokens"}
"""Waits ten seconds for an answer that must not come."""

EITHER_WAY = {"vm/ops-Running/hvm-get_data_sources-51"}
"""Deviations that pass when the pool is quick: before the metrics service has looked at a new VM."""


def sample(cases: Iterable[str]) -> set[str]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for case in sorted(cases):
        kinds[case.rpartition("/")[0]].append(case)
    return {
        case
        for kind, members in kinds.items()
        for case in members[:: EVERY_OF_STORAGE if corpus.area(kind) in STORAGE else EVERY]
    } - WAITING


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[corpus.Outcome]:
    options = ("--bare", "--hosts", "1", "--backend", "simulator", *addresses(worker_id, 121))
    pool = PoolUnderTest(tmp_path_factory.mktemp("bare") / "p", *options)
    corpus.install_driver(pool.directory)
    pool.up()
    try:
        wanted = [*corpus.patterns(sample(corpus.committed())), *sample(corpus.deviations())]
        yield corpus.replay(pool.url, pool.password, wanted)
    finally:
        pool.down()


def test_the_sample_has_cases_of_every_area_and_kind() -> None:
    cases = set(corpus.committed()) - WAITING
    chosen = sample(cases)
    assert {case.rpartition("/")[0] for case in chosen} == {case.rpartition("/")[0] for case in cases}
    assert len(chosen) > len(cases) / 8


def test_every_case_that_passed_still_passes(outcome: corpus.Outcome) -> None:
    lost = sample(corpus.committed()) - outcome.passed
    assert not lost, f"no longer as the original:\n{corpus.details(outcome, lost)}\n{sorted(lost)}"


def test_no_deviation_is_listed_for_a_case_that_passes(outcome: corpus.Outcome) -> None:
    assert outcome.of("stale") <= EITHER_WAY


def test_the_list_of_passing_cases_is_in_order_and_without_repetitions() -> None:
    assert corpus.committed() == sorted(set(corpus.committed()))


def test_deviations_say_why() -> None:
    text = Path(corpus.DEVIATIONS).read_text()
    assert text.count("[[deviation]]") == text.count("\nreason = ") == text.count("\ncase = ")
