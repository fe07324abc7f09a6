"""`python -m bench.standby`: how far a standby is behind the primary, and how soon it takes over after kill -9.

Lag: from the answer of a transaction until the standby says that it has it on stable storage, as far as one can see by
asking it again and again, a bus call each.
"""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.__main__ import table
from bench.bus import quantile
from bench.db_processes import PATIENCE, Client, Site, client, site
from bench.result import Result
from shared.bus.contract import Empty
from shared.bus.interface import BusError
from shared.contracts.db import DB_ROLE, PROMOTE, Promote
from shared.errors import ApiError

WRITES = 400
PAUSE = 0.01
"""Seconds between two transactions."""
PROMOTIONS = 3
AIM_LAG = 50.0
"""Milliseconds."""
AIM_PROMOTION = 2.0


async def until_durable(writer: Client, host: str, generation: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            role = await writer.bus.call(DB_ROLE, Empty(), host=host, timeout=2.0)
            if role.role == "standby" and role.caught_up and role.durable >= generation:
                return
        except (BusError, ApiError):
            await asyncio.sleep(0.05)
        if time.monotonic() > deadline:
            raise RuntimeError(f"the standby does not get to generation {generation}")


async def lag(writer: Client, host: str) -> list[float]:
    """Seconds, for each transaction."""
    found = []
    for number in range(WRITES):
        generation = await writer.write(f"text {number}")
        begun = time.perf_counter()
        await until_durable(writer, host, generation)
        found.append(time.perf_counter() - begun)
        await asyncio.sleep(PAUSE)
    return found


async def measure(place: Site) -> list[Result]:
    seed = place.seed()
    place.start(0, seed=seed)
    async with client(place.bus) as writer:
        await writer.status()
        place.start(1, seed=seed)
        await writer.make_rows(50)
        generation = await writer.write("first")
        await until_durable(writer, place.hosts[1], generation)
        found = await lag(writer, place.hosts[1])
        promotions = []
        primary = 0
        for _ in range(PROMOTIONS):
            place.kill(primary)
            begun = time.perf_counter()
            await writer.bus.call(PROMOTE, Promote(), host=place.hosts[1 - primary], timeout=PATIENCE)
            promotions.append(time.perf_counter() - begun)
            await writer.write("after")
            place.start(primary, seed=seed)
            primary = 1 - primary
            generation = await writer.write("again")
            await until_durable(writer, place.hosts[1 - primary], generation)
    print(f"lag p50 {quantile(found, 0.5) * 1000:.2f} ms; promotions {[round(each, 3) for each in promotions]} s")
    return [
        Result(
            name="standby lag p99",
            value=quantile(found, 0.99) * 1000,
            unit="ms",
            reference=AIM_LAG,
            reference_name="aim",
            aim=1.0,
        ),
        Result(
            name=f"promotion, longest of {PROMOTIONS}",
            value=max(promotions),
            unit="s",
            reference=AIM_PROMOTION,
            reference_name="aim",
            aim=1.0,
        ),
    ]


def main() -> list[Result]:
    with site(hosts=2) as place:
        return uvloop.run(measure(place))


if __name__ == "__main__":
    print(table(main()))
