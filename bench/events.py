"""`python -m bench.events`: event.from on one API process of a whole pool. Ten thousand clients that wait at once; how
fast a change reaches one of them, and all; the whole pool as one answer.

The references are upstream's own figures on such a machine, and for the waiters the aims themselves.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import uvloop

from bench import population
from bench.__main__ import table
from bench.event_clients import Client, call, connect, connect_many
from bench.result import Result
from shared.bus import amqp
from shared.bus.contract import Empty
from shared.contracts.db import DB_STATUS, TRANSACT, Create, Transact

WAITERS = 10_000
ADDRESS = "127.0.4.11"
WRITES = 120
SNAPSHOTS = 10
SETTLE = 0.06
"""Seconds between two writes: longer than an answer may be held back, as when a pool is quiet."""

UPSTREAM_RECEIVED_MS = 3.6
UPSTREAM_SNAPSHOT_MS = {1000: 225.0}
"""Of a pool of so many VMs."""
AIM_SNAPSHOT_MS = {1000: 14.0, 10_000: 150.0}


class Target(NamedTuple):
    """An API process, and a user of it."""

    process: psutil.Process
    host: str
    port: int
    password: str


@contextmanager
def running_pool() -> Iterator[tuple[Target, Path]]:
    """One host on the simulator, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name) / "p"
        command = [sys.executable, "-m", "pool", "--dir", str(directory)]
        up = [*command, "up", "--hosts", "1", "--backend", "simulator", "--base-address", ADDRESS]
        subprocess.run(up, check=True, stdout=subprocess.DEVNULL)
        try:
            process = psutil.Process(int((directory / "host1" / "api.pid").read_text().split()[0]))
            config = _configuration(directory)
            password = (directory / "password").read_text().strip()
            yield Target(process, ADDRESS, config["options"]["http_port"], password), directory
        finally:
            subprocess.run([*command, "down"], check=True, stdout=subprocess.DEVNULL)


async def login(target: Target) -> tuple[Client, str]:
    client = await connect(target.host, target.port)
    return client, await client.ask("session.login_with_password", "root", target.password, "1.0", "bench")


def cpu(process: psutil.Process) -> float:
    """Seconds of CPU so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


# ---- waiting


class Waiters(NamedTuple):
    """What so many waiting clients cost. Of the server: `kb` of resident memory each, `idle` CPU while nothing happens
    (share of a core), `told_cpu` seconds to tell all. `told`: seconds from the write until the last one had its answer.
    `stalled`: seconds that the slowest of other calls took meanwhile.
    """

    clients: int
    kb: float
    idle: float
    told: float
    told_cpu: float
    stalled: float


async def waiters(target: Target, count: int, quiet: float = 3.0) -> Waiters:
    """`quiet`: seconds to watch the server do nothing."""
    client, session = await login(target)
    other, _ = await login(target)
    network = (await client.ask("network.get_all", session))[0]
    await _wait_and_tell(target, client, session, network, min(count, 100))  # what is paid once is not the waiters'
    before = target.process.memory_info().rss
    clients, answers = await _waiting(target, client, session, network, count)
    memory = target.process.memory_info().rss - before
    spent = cpu(target.process)
    await asyncio.sleep(quiet)
    idle = (cpu(target.process) - spent) / quiet
    pinging = asyncio.create_task(_slowest(other, session, network))
    spent = cpu(target.process)
    begin = time.perf_counter()
    write = client.send(call("network.set_name_description", session, network, f"{begin}"))
    await asyncio.wait_for(asyncio.gather(write, *answers), 60)
    told = max(one.answered_at for one in clients) - begin
    told_cpu = cpu(target.process) - spent
    pinging.cancel()
    stalled = await pinging
    for one in (*clients, client, other):
        one.transport.close()
    return Waiters(count, memory / count / 1000, idle, told, told_cpu, stalled)


async def _waiting(
    target: Target, client: Client, session: str, network: str, count: int
) -> tuple[list[Client], list[asyncio.Future[None]]]:
    """So many clients that wait, each on its own connection, for one network; and their answers to come."""
    token = (await client.ask("event.from", session, [f"network/{network}"], "", 0.0))["token"]
    request = call("event.from", session, [f"network/{network}"], token, 3600.0)
    clients = await connect_many(target.host, target.port, count)
    answers = [one.send(request) for one in clients]
    while await _known_waiters(target) < count:  # noqa: ASYNC110 (it is another process)
        await asyncio.sleep(0.1)
    return clients, answers


async def _wait_and_tell(target: Target, client: Client, session: str, network: str, count: int) -> None:
    clients, answers = await _waiting(target, client, session, network, count)
    await client.ask("network.set_name_description", session, network, f"{time.perf_counter()}")
    await asyncio.wait_for(asyncio.gather(*answers), 60)
    for one in clients:
        one.transport.close()


async def _known_waiters(target: Target) -> int:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    lines = [line for line in text.splitlines() if line.startswith("xapi_event_waiters")]
    return int(float(lines[0].split()[-1]))


async def _slowest(client: Client, session: str, network: str) -> float:
    """Seconds of the slowest of small calls made one after the other, until cancelled."""
    slowest = 0.0
    try:
        while True:
            begin = time.perf_counter()
            await client.ask("network.get_name_label", session, network)
            slowest = max(slowest, time.perf_counter() - begin)
            await asyncio.sleep(0.002)
    except asyncio.CancelledError:
        return slowest


# ---- from write to event


async def received(target: Target) -> list[float]:
    """Milliseconds from sending a write to having its event, for a client that waits."""
    writer, session = await login(target)
    reader = await connect(target.host, target.port)
    network = (await writer.ask("network.get_all", session))[0]
    token = (await reader.ask("event.from", session, ["network"], "", 0.0))["token"]
    samples = []
    for number in range(WRITES + 10):
        asked = asyncio.create_task(reader.ask("event.from", session, ["network"], token, 30.0))
        await asyncio.sleep(SETTLE)
        begin = time.perf_counter()
        written = writer.send(call("network.set_name_description", session, network, f"{begin}"))
        token = (await asked)["token"]
        if number >= 10:
            samples.append((reader.answered_at - begin) * 1000)
        await written
    for one in (reader, writer):
        one.transport.close()
    return samples


async def floor(directory: Path) -> tuple[float, float]:
    """(bus, disk) in milliseconds, p50: what of the time from write to event is not the API's. A question to the
    database and its answer, and making a few bytes durable, as far apart as the writes are.
    """
    bus = await amqp.connect(_configuration(directory)["bus"]["url"], "bench")
    asked, synced = [], []
    with (directory / "bench").open("ab", buffering=0) as file:
        for _ in range(WRITES // 2):
            begin = time.perf_counter()
            await bus.call(DB_STATUS, Empty())
            asked.append((time.perf_counter() - begin) * 1000)
            await asyncio.sleep(SETTLE)
            synced.append(await asyncio.to_thread(_sync, file.fileno()))
            await asyncio.sleep(SETTLE)
    await bus.close()
    return statistics.median(asked), statistics.median(synced)


def _sync(file: int) -> float:
    begin = time.perf_counter()
    os.write(file, b"x" * 400)
    os.fdatasync(file)
    return (time.perf_counter() - begin) * 1000


def _configuration(directory: Path) -> dict[str, Any]:
    return tomllib.loads((directory / "host1" / "api.toml").read_text())


# ---- the whole pool


async def populate(directory: Path, target: Target, first: int, vms: int) -> None:
    """Puts the rows of VMs into the database, until there are so many."""
    client, session = await login(target)
    network, sr = (await client.ask("network.get_all", session))[0], (await client.ask("SR.get_all", session))[0]
    bus = await amqp.connect(_configuration(directory)["bus"]["url"], "bench")
    some: list[Any] = []
    for create in population.creations(vms, network=network, sr=sr, seed=first + 1):
        some.append(create)
        if len(some) == 2000:
            await _write(bus, some)
            some = []
    await _write(bus, some)
    await bus.close()
    # The publisher of allowed operations looks at all of them; the pool is measured when it is quiet.
    while True:
        spent = cpu(target.process)
        await asyncio.sleep(1.0)
        if cpu(target.process) - spent < 0.1:
            break
    client.transport.close()


async def _write(bus: Any, rows: list[Create]) -> None:
    await bus.call(TRANSACT, Transact(changes=list(rows), preconditions=[]), timeout=60)


async def snapshots(target: Target) -> tuple[float, float, float]:
    """(p50 in milliseconds, server CPU in milliseconds, megabytes) of everything there is, as a client gets it."""
    client, session = await login(target)
    times, used = [], []
    for number in range(SNAPSHOTS + 2):
        spent = cpu(target.process)
        begin = time.perf_counter()
        await client.send(call("event.from", session, ["*"], "", 0.0))
        if number >= 2:
            times.append((client.answered_at - begin) * 1000)
            used.append((cpu(target.process) - spent) * 1000)
        await asyncio.sleep(0.3)  # so that each is made anew
    size = len(client.body) / 1e6
    client.transport.close()
    return statistics.median(times), statistics.mean(used), size


# ---- the table


async def measure(target: Target, directory: Path) -> list[Result]:
    waiting = await waiters(target, WAITERS)
    samples = await received(target)
    bus, disk = await floor(directory)
    print(
        f"bench: {waiting.clients} waiters: {waiting.kb:.1f} kB each; idle {waiting.idle:.1%} of a core; told in"
        f" {waiting.told:.2f} s with {waiting.told_cpu:.2f} s of CPU; slowest other call meanwhile"
        f" {waiting.stalled * 1000:.0f} ms"
    )
    print(
        f"bench: write to event p50 {statistics.median(samples):.2f} ms, p99"
        f" {sorted(samples)[int(len(samples) * 0.99)]:.2f} ms; a question to the database alone {bus:.2f} ms, making"
        f" it durable {disk:.2f} ms"
    )
    results = [
        _compared(f"{WAITERS} waiters, memory each", waiting.kb, "kB", "aim", 40.0, 1.0),
        _compared("a change told to all", waiting.told, "s", "aim", 1.0, 1.0),
        _compared("write to event p50", statistics.median(samples), "ms", "upstream", UPSTREAM_RECEIVED_MS, 3.0 / 3.6),
    ]
    made = 0
    for vms, aim in AIM_SNAPSHOT_MS.items():
        await populate(directory, target, made, vms - made)
        made = vms
        median, spent, size = await snapshots(target)
        print(f"bench: event.from of {vms} VMs: {size:.1f} MB, server CPU {spent:.0f} ms")
        upstream = UPSTREAM_SNAPSHOT_MS.get(vms)
        reference = ("upstream", upstream, aim / upstream) if upstream else ("aim", aim, 1.0)
        results.append(_compared(f"event.from of {vms} VMs p50", median, "ms", *reference))
    return results


def _compared(name: str, value: float, unit: str, reference_name: str, reference: float, aim: float) -> Result:
    return Result(name=name, value=value, unit=unit, reference_name=reference_name, reference=reference, aim=aim)


def main() -> list[Result]:
    os.environ.pop("PYTHONASYNCIODEBUG", None)
    with running_pool() as (target, directory):
        return uvloop.run(measure(target, directory))


if __name__ == "__main__":
    print(table(main()))
