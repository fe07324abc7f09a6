"""Some dozens of crashes in each run of the tests; `python -m bench crash` makes thousands of them.

Each test is one campaign (`campaign.py`): clients write over the bus, something is killed at a random moment, and the
recorded history is checked (`history.py`). What fails says with which seed it can be done again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from pool import rabbitmq
from tests.db.crash.campaign import Campaign, Plan, Summary
from tests.db.crash.plans import KINDS, plan

SEED = int(os.environ.get("CRASH_SEED", "0")) or random.randrange(1, 10**6)


def judged(summary: Summary, made: Plan) -> None:
    """Fails with what is wrong, and how to do it again."""
    told = "\n".join(summary.violations)
    assert not summary.violations, f"with CRASH_SEED={made.seed}:\n{told}\n\n{summary.table()}"
    assert summary.rounds == made.rounds
    assert summary.transactions > made.rounds


async def run(kind: str, rounds: int, folder: Path, url: str, log: str = "file") -> None:
    made = plan(kind, rounds, SEED, log, folder)
    judged(await Campaign(made, folder, url).run(), made)


@pytest.mark.broker
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "rounds"), [("kill", 8), ("power", 8), ("errors", 9), ("standby", 4)])
async def test_nothing_acknowledged_is_lost(kind: str, rounds: int, tmp_path: Path, broker_url: str) -> None:
    await run(kind, rounds, tmp_path, broker_url)


@pytest.mark.broker
@pytest.mark.timeout(300)
async def test_nothing_acknowledged_is_lost_when_the_broker_is_killed_too(
    tmp_path: Path, broker_node: rabbitmq.Node
) -> None:
    made = plan("broker", 1, SEED, "file", tmp_path)
    judged(await Campaign(made, tmp_path, broker_node.url, broker_node).run(), made)


OTHERS: Mapping[str, str] = {"block": "power", "quorum": "power", "off": "kill"}


@pytest.mark.broker
@pytest.mark.timeout(300)
@pytest.mark.parametrize("log", OTHERS)
async def test_other_redo_logs_lose_nothing_either(log: str, tmp_path: Path, broker_url: str) -> None:
    await run(OTHERS[log], 3, tmp_path, broker_url, log)


def test_without_a_redo_log_no_plan_cuts_the_power(tmp_path: Path) -> None:
    for kind, chosen in KINDS.items():
        if chosen.power:
            with pytest.raises(ValueError, match="nothing outlives"):
                plan(kind, 1, 1, "off", tmp_path)
