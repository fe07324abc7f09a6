"""From what a redo log holds to the rows as they are now."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.db.redo.interface import Recovered
from shared import garbage
from shared.contracts.db import Delta, RowChange, RowDeleted, RowModified
from shared.store import LINKS, Store

RESERVE: Final = 500_000
"""A durable record is forced at least once in so many generations; a restart of the machine skips twice as many."""


def boot_id() -> str:
    """Changes when the machine is started anew: what was not synced may be gone then."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def restore(found: Recovered, boot: str, apply: Callable[[Store, Delta], object] = Store.apply) -> Store:
    """The rows as the log tells them. After a restart of the machine volatile rows are gone and generations skip ahead,
    past any that were handed out without being written. `apply`: of each commit that is in the log.
    """
    with garbage.paused():
        store = _replayed(found, boot, apply)
    garbage.keep(store.count())
    return store


def _replayed(found: Recovered, boot: str, apply: Callable[[Store, Delta], object]) -> Store:
    store = Store()
    store.load(found.rows, found.generation if not found.records else found.records[0].generation - 1, found.term)
    restarts = deque(found.restarts)
    for record in found.records:
        while restarts and restarts[0] < record.generation:
            _forget_volatile(store, restarts.popleft())
        delta = Delta(
            term=record.term,
            generation=record.generation,
            previous=store.generation,
            changes=record.changes,
            task=record.task,
            session=record.session,
            call=record.call,
        )
        apply(store, delta)
    for generation in restarts:
        _forget_volatile(store, generation)
    store.generation, store.term = found.generation, found.term
    if found.boot and found.boot != boot:
        _forget_volatile(store, store.generation + 2 * RESERVE)
    return store


def _forget_volatile(store: Store, generation: int) -> None:
    """What a restart of the machine does to the rows. It is in no log: each later start does it again at its place."""
    changes = blank_volatile(store)
    store.apply(Delta(term=store.term, generation=generation, previous=store.generation, changes=changes))


def blank_volatile(store: Store) -> list[RowChange]:
    """Rows of non-persistent classes go, non-persistent fields become their type's empty value."""
    changes: list[RowChange] = []
    for name, table in store.tables.items():
        if not table.cls.persist:
            changes += [RowDeleted(cls=name, ref=ref) for ref in table.rows]
            continue
        derived = LINKS[name].derived
        volatile = [field for field in table.cls.fields.values() if not field.persist and field.name not in derived]
        if volatile:
            fields = {field.name: field.type.empty() for field in volatile}
            changes += [RowModified(cls=name, ref=ref, fields=fields) for ref in table.rows]
    return changes
