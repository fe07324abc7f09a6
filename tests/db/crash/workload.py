"""What the clients do: transactions of every kind, each with values that no other one writes.

Every transaction changes something that only it writes, so its generation is its own. Rows that all clients use are
hot: they meet there, by preconditions and without.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.bus.interface import Bus
from shared.contracts.db import (
    Change,
    Create,
    Delete,
    Equals,
    KeyAbsent,
    MapDrop,
    MapPut,
    Precondition,
    RowPresent,
    SetAdd,
    SetDrop,
    Unchanged,
    Update,
)
from shared.database import Database
from shared.errors import ApiError, DatabaseConflict
from shared.replica import Replica
from shared.store import Store
from tests.db.crash.recorder import Recorder

NETWORKS: Final = 3
MACHINES: Final = 3
DISKS: Final = 4
TAGS: Final = ("a", "b", "c")
IMPATIENT: Final = 0.04
"""Share of transactions whose client goes away while they run."""


@dataclass
class Shared:
    """Rows that all clients use."""

    networks: list[str] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)
    disks: list[str] = field(default_factory=list)


Decision = tuple[Sequence[Change], Sequence[Precondition], None]


class Client:
    """`run` until cancelled, at most one transaction at a time. `pause`, `resume`: between two of them."""

    def __init__(self, name: str, rng: random.Random, bus: Bus, replica: Replica, recorder: Recorder) -> None:
        self.name = name
        self.done = 0
        self._rng = rng
        self._recorder = recorder
        self._replica = replica
        self._db = Database(recorder.bus(bus, name, replica), replica)
        self._count = 0
        self._own: list[tuple[str, str]] = []
        """Rows that only this client makes and removes: machines with two disks, tasks."""
        self._free = asyncio.Event()
        self._free.set()
        self._idle = asyncio.Event()

    async def pause(self) -> None:
        self._free.clear()
        await self._idle.wait()

    def resume(self) -> None:
        self._free.set()

    async def run(self, shared: Shared, pace: float) -> None:
        """`pace`: seconds of rest between two transactions, on average."""
        kinds = (
            (self._pair, 4),
            (self._raise_counter, 5),
            (self._put, 3),
            (self._tag, 2),
            (self._mixed, 2),
            (self._make_machine, 2),
            (self._remove_own, 3),
            (self._move_disk, 3),
            (self._task, 2),
            (self._task_progress, 2),
            (self._refused, 1),
            (self._look, 1),
        )
        steps, weights = [kind for kind, _ in kinds], [weight for _, weight in kinds]
        while True:
            self._idle.set()
            await self._free.wait()
            self._idle.clear()
            (step,) = self._rng.choices(steps, weights)
            patience = self._rng.uniform(0, 0.01) if self._rng.random() < IMPATIENT else None
            with contextlib.suppress(ApiError, TimeoutError):  # written down, and judged by the checker
                async with asyncio.timeout(patience):
                    await step(shared)
            self.done += 1
            await asyncio.sleep(self._rng.expovariate(1 / pace))

    async def prepare(self, shared: Shared) -> None:
        """Makes the rows that all use."""
        made = Shared(
            networks=[self._ref() for _ in range(NETWORKS)],
            machines=[self._ref() for _ in range(MACHINES)],
            disks=[self._ref() for _ in range(DISKS)],
        )
        changes: list[Change] = [
            Create(cls="network", ref=ref, fields={"name_label": self._value(), "name_description": self._value()})
            for ref in made.networks
        ]
        changes += [
            Create(cls="VM", ref=ref, fields={"name_label": self._value(), "user_version": 0}) for ref in made.machines
        ]
        changes += [
            Create(cls="VBD", ref=ref, fields={"VM": self._rng.choice(made.machines), "userdevice": self._value()})
            for ref in made.disks
        ]
        await self._db.transact(changes)
        shared.networks, shared.machines, shared.disks = made.networks, made.machines, made.disks

    def _value(self) -> str:
        self._count += 1
        return f"{self.name}.{self._count}"

    def _ref(self) -> str:
        return f"OpaqueRef:{uuid.UUID(int=self._rng.getrandbits(128))}"

    # ---- the kinds

    async def _pair(self, shared: Shared) -> None:
        """Two fields of two rows, whatever was there."""
        value = self._value()
        refs = self._rng.sample(shared.networks, 2)
        await self._db.transact(
            [
                Update(cls="network", ref=ref, fields={"name_label": value, "name_description": f"{value} {number}"})
                for number, ref in enumerate(refs)
            ]
        )

    async def _raise_counter(self, shared: Shared) -> None:
        """All clients raise the same numbers; who was not the first decides again."""
        ref = self._rng.choice(shared.machines)

        def decision(store: Store) -> Decision:
            number = store.get("VM", ref, "user_version")
            fields = {"user_version": number + 1, "name_label": self._value()}
            given = [Equals(cls="VM", ref=ref, field="user_version", value=number)]
            return [Update(cls="VM", ref=ref, fields=fields)], given, None

        await self._db.decide(decision)

    async def _put(self, shared: Shared) -> None:
        """Keys of a map: a new one that must not be there, one that is replaced, one that goes."""
        ref = self._rng.choice(shared.networks)
        key = f"k{self._rng.randrange(4)}"

        def decision(store: Store) -> Decision:
            value = self._value()
            keys = store.get("network", ref, "other_config")
            if key not in keys:
                new = MapPut(cls="network", ref=ref, field="other_config", key=key, value=value, new=True)
                return [new], [KeyAbsent(cls="network", ref=ref, field="other_config", key=key)], None
            changes: list[Change] = [Update(cls="network", ref=ref, fields={"name_description": value})]
            if self._rng.random() < 0.5:
                changes.append(MapDrop(cls="network", ref=ref, field="other_config", key=key))
            else:
                changes.append(MapPut(cls="network", ref=ref, field="other_config", key=key, value=f"{value}!"))
            return changes, [RowPresent(cls="network", ref=ref)], None

        await self._db.decide(decision)

    async def _tag(self, shared: Shared) -> None:
        ref, tag = self._rng.choice(shared.networks), self._rng.choice(TAGS)
        change = self._rng.choice((SetAdd, SetDrop))(cls="network", ref=ref, field="tags", value=tag)
        await self._db.transact([change, Update(cls="network", ref=ref, fields={"name_description": self._value()})])

    async def _mixed(self, shared: Shared) -> None:
        """A persistent and a volatile field in one transaction."""
        ref = self._rng.choice(shared.machines)

        def decision(store: Store) -> Decision:
            value = self._value()
            operations = store.get("VM", ref, "current_operations")
            changes: list[Change] = [
                MapPut(cls="VM", ref=ref, field="current_operations", key=value, value="start"),
                Update(cls="VM", ref=ref, fields={"name_label": value}),
            ]
            changes += [MapDrop(cls="VM", ref=ref, field="current_operations", key=key) for key in list(operations)[2:]]
            return changes, [Unchanged(cls="VM", ref=ref, generation=store.generation)], None

        await self._db.decide(decision)

    async def _make_machine(self, _: Shared) -> None:
        if len(self._own) > 6:
            return
        machine = self._ref()
        disks = [self._ref() for _ in range(2)]
        await self._db.transact(
            [
                Create(cls="VM", ref=machine, fields={"name_label": self._value(), "user_version": 1}),
                *(Create(cls="VBD", ref=ref, fields={"VM": machine, "userdevice": self._value()}) for ref in disks),
            ]
        )
        self._own.append(("VM", machine))

    async def _remove_own(self, _: Shared) -> None:
        """A row with all that refers to it: they are named as the replica shows them."""
        if not self._own:
            return
        cls, ref = self._rng.choice(self._own)

        def decision(store: Store) -> Decision:
            row = store.row(cls, ref)
            if row is None:
                return [], [], None
            disks = list(row["VBDs"]) if cls == "VM" else []
            changes: list[Change] = [Delete(cls="VBD", ref=disk) for disk in disks]
            return (
                [*changes, Delete(cls=cls, ref=ref)],
                [
                    Unchanged(cls=cls, ref=ref, generation=store.generation),
                    *(RowPresent(cls="VBD", ref=disk) for disk in disks),
                ],
                None,
            )

        await self._db.decide(decision)
        self._own.remove((cls, ref))

    async def _move_disk(self, shared: Shared) -> None:
        """A reference that several rows' lists follow."""
        ref, machine = self._rng.choice(shared.disks), self._rng.choice(shared.machines)

        def decision(store: Store) -> Decision:
            store.get("VBD", ref, "VM")  # one that was lost is HANDLE_INVALID, and for the checker to tell
            given = Unchanged(cls="VBD", ref=ref, generation=store.generation)
            return [Update(cls="VBD", ref=ref, fields={"VM": machine, "userdevice": self._value()})], [given], None

        await self._db.decide(decision)

    async def _task(self, _: Shared) -> None:
        """A volatile row."""
        ref = self._ref()
        await self._db.transact([Create(cls="task", ref=ref, fields={"name_label": self._value()})])
        self._own.append(("task", ref))

    async def _task_progress(self, _: Shared) -> None:
        tasks = [ref for cls, ref in self._own if cls == "task" and self._replica.store.row("task", ref) is not None]
        if not tasks:
            return
        fields = {"name_description": self._value(), "progress": self._rng.random()}
        await self._db.transact([Update(cls="task", ref=self._rng.choice(tasks), fields=fields)])

    async def _refused(self, shared: Shared) -> None:
        """The last change of several cannot be made, or a fact does not hold: nothing of it may be seen."""
        first = Update(cls="network", ref=shared.networks[0], fields={"name_label": self._value()})
        gone = Update(cls="network", ref=self._ref(), fields={"name_label": self._value()})
        wrong = Equals(cls="network", ref=shared.networks[0], field="name_label", value="what nobody wrote")
        with contextlib.suppress(DatabaseConflict):
            if self._rng.random() < 0.5:
                await self._db.transact([first, gone])
            else:
                await self._db.transact([first], [wrong])

    async def _look(self, _: Shared) -> None:
        """What the replica shows, after all of this client's own writes."""
        self._recorder.read(self.name, self._replica.store)
