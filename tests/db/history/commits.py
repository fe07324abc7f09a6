"""A database without a disk: transactions, and the history that is told of them."""

from __future__ import annotations

from typing import Any

from services.db.history.told import Commit, Teller
from services.db.transaction import inverse, resolve
from shared.bus.context import CallContext
from shared.contracts.db import Change, Delta, Transact
from shared.contracts.db_history import FieldChange, HistoryEntry, ObjectChange
from shared.store import Store


class Told:
    """`context`: of whoever changes something."""

    def __init__(self, *, volatile: bool = False) -> None:
        self.store = Store()
        self.context = CallContext()
        self._teller = Teller(volatile)

    def change(self, *changes: Change) -> HistoryEntry | None:
        store = self.store
        resolved = resolve(store, Transact(changes=list(changes)))
        delta = Delta(term=1, generation=store.generation + 1, previous=store.generation, changes=resolved)
        undo = inverse(store, resolved)
        rows = {item.ref: item.row.fields for item in store.apply(delta)}
        task = store.row("task", self.context.task)
        session = store.row("session", self.context.session)
        return self._teller.entry(Commit(delta, undo, rows, 1000.0, self.context, task, session))

    def told(self, *changes: Change) -> dict[tuple[str, str], dict[str, tuple[Any, Any]]]:
        """By reference and kind: the fields with their old and new values."""
        entry = self.change(*changes)
        return {} if entry is None else {(each.ref, each.kind): values(each) for each in entry.changes}


def values(change: ObjectChange) -> dict[str, tuple[Any, Any]]:
    return {field.name: (field.old, field.new) for field in change.fields}


def entry(generation: int, ref: str = "OpaqueRef:1", **fields: Any) -> HistoryEntry:
    """One of a name that changed."""
    change = ObjectChange(
        cls="VM",
        ref=ref,
        kind="mod",
        uuid=f"uuid of {ref}",
        name=f"name {generation}",
        fields=[FieldChange(name="name_label", old=f"name {generation - 1}", new=f"name {generation}")],
    )
    return HistoryEntry(
        **{"generation": generation, "term": 1, "time": 1000.0 + generation, "changes": [change], **fields}
    )
