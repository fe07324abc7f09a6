"""Rounds of crashes: clients write, something is killed, the database recovers, the history is checked.

A chapter is some rounds that are one history. At its end the clients rest, the followers are compared with the primary
at the same generation, the history is checked, and the next one begins with the rows as they are.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pool import rabbitmq
from services.db.recovery import RESERVE
from shared.bus import amqp
from shared.bus.contract import Empty
from shared.bus.interface import Bus
from shared.contracts.db import DB_ROLE, DB_STATUS, DbStatus
from shared.errors import ApiError
from tests.db.crash.canonical import spelled_out
from tests.db.crash.database import DatabaseProcess
from tests.db.crash.history import check
from tests.db.crash.recorder import Follower, Recorder
from tests.db.crash.workload import Client, Shared
from tests.db.soundness import damaged

Result = TypeVar("Result")

PATIENCE: Final = 60.0
"""Seconds until the database has to answer after whatever was done to it."""

STANDBY: Final = "90d1f3c4-55a0-4a57-8d0e-7a1b2c3d4e5f"
"""The host whose process is standby."""

EXPECTED: Final = ("DB_CONFLICT", "HANDLE_INVALID", "MAP_DUPLICATE_KEY")
NOT_SAVED: Final = ("not saved, nothing changed", "the redo log failed")


@dataclass(frozen=True)
class Plan:
    """`actions`: what is done, with how often relative to each other. `disk`: as in `process.py`; "": the real thing.

    `options`: of the database process. `work`: longest time in seconds that clients work before something is done.
    `refuses`: the log may say that it cannot be written. `standby`: another process follows and keeps what it follows.
    """

    rounds: int
    seed: int
    actions: Mapping[str, int]
    disk: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    clients: int = 4
    pace: float = 0.004
    work: float = 0.15
    chapter: int = 25
    refuses: bool = False
    standby: bool = False


@dataclass
class Summary:
    """What was done and found. `recoveries`: seconds of each, from the start of the process to its first answer."""

    rounds: int = 0
    transactions: int = 0
    done: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    states: int = 0
    deltas: int = 0
    ended: int = 0
    """Times that the process ended by itself: it found that it could not go on."""
    violations: list[str] = field(default_factory=list)

    @property
    def slowest(self) -> float:
        return max(self.recoveries, default=0.0)

    def table(self) -> str:
        lines = [
            ("rounds", str(self.rounds)),
            ("transactions", str(self.transactions)),
            *((name, str(count)) for name, count in sorted(self.done.items())),
            ("ended by itself", str(self.ended)),
            ("states compared", str(self.states)),
            ("deltas", str(self.deltas)),
            *((f"refused: {name[:60]}", str(count)) for name, count in sorted(self.refusals.items())),
            ("recoveries", str(len(self.recoveries))),
            ("slowest recovery", f"{self.slowest:.2f} s"),
            ("violations", str(len(self.violations))),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines)


class Campaign:
    """`node`: a broker of the campaign's own when `actions` kill it."""

    def __init__(self, plan: Plan, folder: Path, url: str, node: rabbitmq.Node | None = None) -> None:
        self.summary = Summary()
        self._plan = plan
        self._url = url
        self._node = node
        self._rng = random.Random(plan.seed)
        self._recorder = Recorder()
        self._database = DatabaseProcess(
            folder, url, plan.options, disk=plan.disk, seed=plan.seed, told=self._recorder.interrupted
        )
        self._standby = DatabaseProcess(
            folder / "standby",
            url,
            {**plan.options, "redo_log": "file", "role": "standby"},
            disk=plan.disk,
            seed=plan.seed,
            told=lambda _: None,
            host=STANDBY,
            name="standby",
        )
        self._followers: list[Follower] = []
        self._clients: list[Client] = []
        self._work: list[asyncio.Task[None]] = []
        self._control: Bus | None = None
        self._actions: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "kill in checkpoint": self._kill_in_checkpoint,
            "kill while stopping": self._kill_while_stopping,
            "cut power": self._cut_power,
            "cut power in checkpoint": self._cut_power_in_checkpoint,
            "tear": self._tear,
            "kill checkpoint": self._kill_checkpoint,
            "pause": self._pause,
            "kill broker": self._kill_broker,
            "pause broker": self._pause_broker,
            "kill standby": self._kill_standby,
            "wait": self._wait,
        }

    async def run(self, progress: Callable[[Summary], None] | None = None) -> Summary:
        """Ends early when something is wrong."""
        try:
            await self._begin()
            while self.summary.rounds < self._plan.rounds and not self.summary.violations:
                await self._chapter(min(self._plan.chapter, self._plan.rounds - self.summary.rounds))
                if progress is not None:
                    progress(self.summary)
        finally:
            await self._end()
        return self.summary

    async def _begin(self) -> None:
        await self._database.start()
        self._control = await amqp.connect(self._url, name="crash control")
        await self._status()
        if self._plan.standby:
            await self._standby.start()
        for number in range(2):
            bus = await amqp.connect(self._url, name=f"crash follower {number}")
            self._followers.append(Follower(self._recorder, bus, f"follower {number}"))
            await self._followers[-1].start()
        shared = Shared()
        for number in range(self._plan.clients):
            follower = self._followers[number % len(self._followers)]
            rng = random.Random(self._rng.getrandbits(64))
            self._clients.append(Client(f"c{number}", rng, follower.bus, follower.replica, self._recorder))
        while not shared.networks:
            with suppress(*((ApiError,) if self._plan.refuses else ())):
                await self._clients[0].prepare(shared)
        for client in self._clients:
            work = client.run(shared, self._plan.pace)
            self._work.append(asyncio.create_task(work, name=client.name))

    async def _end(self) -> None:
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._database.stop()
        await self._standby.stop()
        for follower in self._followers:
            await follower.stop()
        if self._control is not None:
            await self._control.close()

    # ---- rounds

    async def _chapter(self, rounds: int) -> None:
        for client in self._clients:
            client.resume()
        names, weights = list(self._plan.actions), list(self._plan.actions.values())
        for _ in range(rounds):
            await asyncio.sleep(self._rng.uniform(0, self._plan.work))
            (name,) = self._rng.choices(names, weights)
            await self._actions[name]()
            self.summary.done[name] += 1
            await self._recovered()
            self.summary.rounds += 1
            self._raise_errors()
        await asyncio.gather(*(client.pause() for client in self._clients))
        await self._compare()
        self._judge()

    async def _recovered(self) -> None:
        """All rows as the primary has them now; whatever was done, it answers."""
        state, store = await self._patiently(lambda: self._recorder.read_all(self._bus, "the primary"))
        for finding in damaged(store):
            self.summary.violations.append(f"unsound at generation {state.generation}: {finding}")

    async def _compare(self) -> None:
        """Nobody writes: followers have what the primary has."""
        state, _ = await self._patiently(lambda: self._recorder.read_all(self._bus, "the primary"))
        for follower in self._followers:
            try:
                await follower.replica.wait_generation(state.generation)
            except ApiError as error:
                self.summary.violations.append(f"{follower.name} does not follow: {error}")
            follower.write_down()
            self._recorder.read(follower.name, follower.replica.store)
        if self._plan.standby:
            await self._compare_standby(state.generation)

    async def _compare_standby(self, generation: int) -> None:
        """It has the same rows, durably, after its own log brought it back as often as it was killed."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            role = await self._patiently(lambda: self._bus.call(DB_ROLE, Empty(), host=STANDBY))
            if role.caught_up and role.generation >= generation and role.durable >= generation:
                await self._patiently(lambda: self._recorder.read_host(self._bus, "the standby", STANDBY))
                return
            await asyncio.sleep(0.05)
        self.summary.violations.append(f"the standby does not follow to {generation}: {role}")

    def _judge(self) -> None:
        recorder, summary = self._recorder, self.summary
        history = recorder.history
        summary.transactions += len(history.operations)
        summary.states += len(history.states)
        summary.deltas += len(history.published)
        summary.violations += [spelled_out(str(violation), recorder.bodies) for violation in check(history)]
        summary.refusals.update(recorder.refusals)
        summary.ended = len(self._database.ended)
        for told, count in recorder.refusals.items():
            if not told.startswith(EXPECTED) and not (self._plan.refuses and any(each in told for each in NOT_SAVED)):
                summary.violations.append(f"{count} transactions were refused: {told}")
        summary.violations += [f"no answer, and nothing was interrupted: {told}" for told in recorder.unanswered]
        if summary.ended and not self._plan.refuses:
            summary.violations.append(f"the process ended by itself: {self._database.ended}")
        recorder.refusals.clear()
        recorder.unanswered.clear()
        last = next(state for state in reversed(history.states) if state.at_once)
        recorder.begin_anew(dict(last.values))

    def _raise_errors(self) -> None:
        for task in self._work:
            if task.done():
                task.result()

    # ---- what is done

    @property
    def _bus(self) -> Bus:
        assert self._control is not None
        return self._control

    async def _patiently(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Tries again until it succeeds. Raises `AssertionError` when the database stays away."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await attempt()
            except ApiError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"no answer after {PATIENCE:.0f} s: {error}") from error
            await asyncio.sleep(0.01)

    async def _status(self) -> DbStatus:
        return await self._patiently(lambda: self._bus.call(DB_STATUS, Empty()))

    async def _start(self) -> DbStatus:
        begun = time.monotonic()
        await self._database.start()
        status = await self._status()
        self.summary.recoveries.append(time.monotonic() - begun)
        return status

    async def _kill(self) -> None:
        await self._database.kill()
        await self._start()

    async def _kill_standby(self) -> None:
        await self._standby.kill()
        await self._standby.start()

    async def _child(self) -> bool:
        """Waits for a checkpoint being written, for at most two seconds."""
        deadline = time.monotonic() + 2.0
        while not self._database.children():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.001)
        await asyncio.sleep(self._rng.uniform(0, 0.02))
        return True

    async def _kill_in_checkpoint(self) -> None:
        await self._child()
        await self._kill()

    async def _kill_checkpoint(self) -> None:
        await self._child()
        for pid in self._database.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _kill_while_stopping(self) -> None:
        await self._database.terminate(self._rng.uniform(0, 0.3))
        await self._start()

    async def _cut_power(self, torn: bool = False) -> None:
        since = self._recorder.now
        await self._database.cut_power(self._rng, torn=torn)
        status = await self._start()
        # The restart has skipped twice as many generations.
        self._recorder.power_lost(since, status.generation - RESERVE)

    async def _tear(self) -> None:
        await self._cut_power(torn=True)

    async def _cut_power_in_checkpoint(self) -> None:
        await self._child()
        await self._cut_power(torn=self._rng.random() < 0.5)

    async def _pause(self) -> None:
        self._database.send(signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0, 0.6))
        self._database.send(signal.SIGCONT)

    async def _wait(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, 0.3))

    async def _kill_broker(self) -> None:
        assert self._node is not None
        self._recorder.interrupted("the broker was killed")
        await asyncio.to_thread(rabbitmq.kill9, self._node)
        self._node = await asyncio.to_thread(rabbitmq.start, self._node.directory)
        await self._status()
        self._recorder.interrupted("the broker is back")

    async def _pause_broker(self) -> None:
        assert self._node is not None
        os.kill(self._node.pid, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0, 2.0))
        os.kill(self._node.pid, signal.SIGCONT)
