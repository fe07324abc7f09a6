"""`python -m bench crash`: thousands of crashes of the database, each followed by a check of all that was ever seen.

    python -m bench crash [--rounds 2000] [--log file|block|quorum|off] [--kind kill|power|errors|...|all] [--seed N]

Clients write over the bus, something is killed at a random moment, the database recovers, and the recorded history is
checked (`tests/db/crash/history.py`). Ends at the first thing that is wrong: with that, the seed, and the folder in
which everything was left. Only run when it is named.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from pool import rabbitmq
from tests.db.crash.campaign import Campaign, Summary
from tests.db.crash.plans import KINDS, LOGS, plan


def command(arguments: list[str]) -> int:
    """Returns the exit status: 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench crash", description=(__doc__ or "").split("\n\n")[2])
    parser.add_argument("--rounds", type=int, default=2000, help="of each kind (%(default)s)")
    parser.add_argument("--log", choices=LOGS, default="file", help="the redo log (%(default)s)")
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all", help="of crashes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random; 0: another one each time")
    given = parser.parse_args(arguments)
    seed = given.seed or random.randrange(1, 10**6)
    if given.kind == "all":
        kinds = [name for name, kind in KINDS.items() if not (kind.power and given.log == "off")]
    else:
        kinds = [given.kind]
    status = 0
    for kind in kinds:
        # A killed broker takes seconds to come back.
        rounds = max(1, given.rounds // 10) if KINDS[kind].broker and given.kind == "all" else given.rounds
        status |= _campaign(kind, rounds, seed, given.log)
    return status


def _campaign(kind: str, rounds: int, seed: int, log: str) -> int:
    print(f"bench: crash: {rounds} rounds of {kind}, redo log {log}, seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-crash-"))
    begun = time.monotonic()
    node = rabbitmq.start(folder / "broker")
    try:
        campaign = Campaign(plan(kind, rounds, seed, log, folder), folder, node.url, node)
        summary = uvloop.run(_watched(campaign))
    except BaseException:
        print(f"bench: crash: failed; everything is in {folder}, the seed is {seed}", file=sys.stderr)
        raise
    finally:
        known = rabbitmq.read(node.directory)
        if known is not None:
            rabbitmq.stop(known)
    print(summary.table())
    print(f"took {time.monotonic() - begun:.0f} s\n", flush=True)
    if summary.violations:
        for violation in summary.violations:
            print(f"bench: crash: {violation}", file=sys.stderr)
        print(
            f"bench: crash: everything is in {folder}; again: python -m bench crash --kind {kind!r} --log {log} "
            f"--rounds {rounds} --seed {seed}",
            file=sys.stderr,
        )
        return 1
    shutil.rmtree(folder)
    return 0


async def _watched(campaign: Campaign) -> Summary:
    def progress(summary: Summary) -> None:
        told = f"{summary.rounds} rounds, {summary.transactions} transactions, slowest recovery {summary.slowest:.2f} s"
        print(f"bench: crash: {told}", flush=True)

    try:
        return await campaign.run(progress)
    except asyncio.CancelledError:
        print(campaign.summary.table())
        raise
