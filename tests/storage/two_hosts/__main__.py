"""The races of two hosts for as long as one likes.

python -m tests.storage.two_hosts --broker URL [--works N] [--seed N] [--kill] [--folder FOLDER]

FOLDER is made, and stays with the logs of the services.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

from tests.storage.two_hosts.hosts import TwoHosts, two_hosts
from tests.storage.two_hosts.races import Races
from tests.storage.two_hosts.witness import Witness


async def main(broker: str, works: int, seed: int, kill: bool, kept: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="two-") as name:
        folder = kept or Path(name)
        folder.mkdir(exist_ok=kept is None)
        async with two_hosts(folder, broker, storage={"coalesce_delay": 0.1}) as hosts:
            races, begun = Races(hosts, Witness(folder / "witness"), seed), time.monotonic()
            disturbed = Disturbance(hosts, seed, kill)
            await races.run(works, disturb=disturbed.once)
            await races.settled()
    print(f"seed {seed}: {works} works in {time.monotonic() - begun:.0f} s, cut off {disturbed.cuts} times,", end=" ")
    print(f"killed {disturbed.kills} times")
    for what, counted in (("done", races.done), ("refused", races.refused), ("without an answer", races.lost)):
        print(f"{what}: {', '.join(f'{name} {count}' for name, count in counted.most_common())}")


class Disturbance:
    """A host is cut off for a while, or its storage service is killed."""

    def __init__(self, hosts: TwoHosts, seed: int, kill: bool) -> None:
        self._hosts, self._random, self._kill = hosts, random.Random(seed), kill
        self.cuts = self.kills = 0

    async def once(self) -> None:
        await asyncio.sleep(self._random.uniform(0.5, 4))
        host = self._random.randrange(2)
        if self._kill and self._random.random() < 0.3:
            await self._hosts.kill(host, "storage")
            self.kills += 1
            await self._hosts.start(host, "storage")
            return
        await self._hosts.cut(host)
        self.cuts += 1
        try:
            await asyncio.sleep(self._random.uniform(0.05, 2))
        finally:
            await self._hosts.heal(host)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--works", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    asyncio.run(main(given.broker, given.works, given.seed, given.kill, given.folder))
