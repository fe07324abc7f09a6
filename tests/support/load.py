"""Clients that keep a pool busy while a test attacks it, and what they were promised meanwhile."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.jsonrpc import Client, Failure, NoAnswer
from tests.support.pool import PoolUnderTest

PYTHON = re.compile(r"\b[A-Z][A-Za-z]*(Error|Exception|Exit|Interrupt|Iteration)\b")
"""Names of Python's exceptions: an answer that holds one was not thought of."""
PAUSE_AFTER_REFUSAL = 0.1
QUIET = 0.3
"""Seconds that `event.from` waits for something to happen."""


class Worker:
    """One client with one VM. `acknowledged`: the last number that the pool said it has written, `sent`: the last
    given to it.
    """

    def __init__(self, client: Client, vm: str, sr: str, rng: random.Random) -> None:
        self.client = client
        self.vm = vm
        self.acknowledged = self.sent = 0
        self.outcomes: Counter[str] = Counter()
        self.started = 0
        self.slowest = ("", 0.0)
        self.unclear: list[list[str]] = []
        self._sr = sr
        self._token = ""
        self._rng = rng

    async def run(self) -> None:
        """Until cancelled."""
        steps = (self._start, self._start, self._shutdown, self._shutdown, self._write, self._wait, self._copy)
        while True:
            step = self._rng.choice(steps)
            begun = time.monotonic()
            try:
                await step()
                outcome = "ok"
            except Failure as failure:
                outcome = failure.code if failure.code != "INTERNAL_ERROR" else str(failure.details)
                if PYTHON.search(" ".join(failure.details)):
                    self.unclear.append(failure.details)
            except NoAnswer:
                outcome = "no answer"
            took = time.monotonic() - begun
            self.outcomes[what := f"{step.__name__}: {outcome}"] += 1
            self.slowest = max(self.slowest, (what, took), key=lambda found: found[1])
            if outcome not in ("ok", "VM_BAD_POWER_STATE"):
                await asyncio.sleep(PAUSE_AFTER_REFUSAL)

    async def _start(self) -> None:
        await self.client.call("VM.start", self.vm, False, False)
        self.started += 1

    async def _shutdown(self) -> None:
        await self.client.call("VM.hard_shutdown", self.vm)

    async def _write(self) -> None:
        self.sent += 1
        number = self.sent
        await self.client.call("VM.set_name_description", self.vm, str(number))
        self.acknowledged = number

    async def _wait(self) -> None:
        found = await self.client.call("event.from", [f"vm/{self.vm}"], self._token, QUIET)
        self._token = found["token"]

    async def _copy(self) -> None:
        copy = await self.client.call("VM.clone", self.vm, f"copy of {self.vm}")
        disks = [await self.client.call("VBD.get_VDI", vbd) for vbd in await self.client.call("VM.get_VBDs", copy)]
        await self.client.call("VM.destroy", copy)
        for disk in disks:
            await self.client.call("VDI.destroy", disk)


class Load:
    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers

    @property
    def started(self) -> int:
        return sum(worker.started for worker in self.workers)

    @property
    def slowest(self) -> tuple[str, float]:
        return max((worker.slowest for worker in self.workers), key=lambda found: found[1])

    def outcomes(self) -> Counter[str]:
        return sum((worker.outcomes for worker in self.workers), Counter())

    @property
    def steps(self) -> list[str]:
        """What clients do."""
        return sorted({outcome.partition(": ")[0] for outcome in self.outcomes()})

    async def more_starts(self, count: int, timeout: float = 60.0) -> None:
        """Until so many more VMs were started: the pool works."""
        wanted = self.started + count
        deadline = time.monotonic() + timeout
        while self.started < wanted:
            assert time.monotonic() < deadline, f"{self.started} of {wanted} starts: {self.outcomes()}"
            await asyncio.sleep(0.05)

    async def assert_kept(self, client: Client) -> None:
        """Nothing that was promised is lost, nothing was said that nobody understands."""
        for worker in self.workers:
            found = int(await client.call("VM.get_name_description", worker.vm))
            assert worker.acknowledged <= found <= worker.sent, "an acknowledged write is lost"
        unclear = [details for worker in self.workers for details in worker.unclear]
        assert not unclear, f"{len(unclear)} answers show Python's insides: {unclear[:3]}"


async def machine(client: Client, name: str, sr: str) -> str:
    """A VM with a disk and an interface."""
    template = (await client.call("VM.get_by_name_label", "Tiny guest"))[0]
    vm = str(await client.call("VM.clone", template, name))
    await client.call("VM.provision", vm)
    await client.call("VM.set_name_description", vm, "0")
    common: dict[str, Any] = {"VM": vm, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    disk = {"name_label": name, "SR": sr, "virtual_size": 8 << 20, "type": "user", "sharable": False}
    vdi = await client.call("VDI.create", {**disk, "read_only": False, "other_config": {}})
    drive = {"VDI": vdi, "userdevice": "0", "bootable": False, "mode": "RW", "type": "Disk", "empty": False}
    await client.call("VBD.create", {**common, **drive})
    network = (await client.call("network.get_all"))[0]
    await client.call("VIF.create", {**common, "network": network, "device": "0", "MAC": "", "MTU": 1500})
    return vm


async def default_sr(client: Client) -> str:
    return str(next(iter((await client.call("pool.get_all_records")).values()))["default_SR"])


@asynccontextmanager
async def clean(pool: PoolUnderTest) -> AsyncIterator[Client]:
    """A session, in a pool that is left as it was found: all VMs and disks go, and what else is new."""
    client = Client(pool.hosts["host1"], pool.plan.http_port)
    await client.login(pool.password)
    before = {cls: set(await client.call(f"{cls}.get_all")) for cls in REMOVE}
    try:
        yield client
    finally:
        client.close()  # what the test did may have broken the connection
        await remove_machines(client)
        for cls, remove in REMOVE.items():
            for ref in set(await client.call(f"{cls}.get_all")) - before[cls]:
                await remove(client, ref)
        await client.call("session.logout")
        client.close()


async def _remove_task(client: Client, task: str) -> None:
    if await client.call("task.get_status", task) == "pending":
        await client.call("task.set_status", task, "success")
    await client.call("task.destroy", task)


async def _remove_sr(client: Client, sr: str) -> None:
    for pbd in await client.call("SR.get_PBDs", sr):
        await client.call("PBD.unplug", pbd)
    await client.call("SR.forget", sr)


async def _remove_network(client: Client, network: str) -> None:
    await client.call("network.destroy", network)


REMOVE = {"task": _remove_task, "SR": _remove_sr, "network": _remove_network}
"""How other things that tests make are taken away."""


async def remove_machines(client: Client) -> None:
    for vm, row in (await client.call("VM.get_all_records")).items():
        if (row["is_a_template"] and "default_template" in row["other_config"]) or row["is_control_domain"]:
            continue
        if row["power_state"] not in ("Halted", "Suspended"):
            await client.call("VM.hard_shutdown", vm)
        await client.call("VM.destroy", vm)
    for vdi in await client.call("VDI.get_all"):
        await client.call("VDI.destroy", vdi)


@asynccontextmanager
async def running(client: Client, count: int, seed: int = 1) -> AsyncIterator[Load]:
    """`count` clients at work, each with a connection of its own."""
    sr = await default_sr(client)
    workers = [
        Worker(
            Client(client.address, client.port, client.session),
            await machine(client, f"load {number}", sr),
            sr,
            random.Random(seed * 1000 + number),
        )
        for number in range(count)
    ]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield Load(workers)
        broken = [task for task in tasks if task.done()]
        for task in broken:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in workers:
            worker.client.close()
