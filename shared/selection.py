"""The few rows of a class for which something holds, found without looking at all of them each time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from shared.store import Store


class Selection:
    """`holds`: of a row's fields, and of nothing else. All rows are looked at the first time, and when too many have
    changed since the last; else those that have changed.
    """

    def __init__(self, cls: str, holds: Callable[[Mapping[str, Any]], bool]) -> None:
        self._cls, self._holds = cls, holds
        self._refs: dict[str, None] = {}
        self._seen: weakref.ref[Store] | None = None
        self._generation = 0

    def among(self, store: Store) -> list[str]:
        """References, those that came last at the end. `store`: of a replica, which may have got another one."""
        known = self._seen is not None and self._seen() is store
        changes = store.changes_since(self._generation) if known else None
        if changes is None:
            self._refs = {ref: None for ref, row in store.rows(self._cls).items() if self._holds(row)}
            self._seen = weakref.ref(store)
        else:
            for ref in (ref for cls, ref in changes if cls == self._cls):
                row = store.row(self._cls, ref)
                if row is not None and self._holds(row):
                    self._refs[ref] = None
                else:
                    self._refs.pop(ref, None)
        self._generation = store.generation
        return list(self._refs)
