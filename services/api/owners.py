"""Whose metrics are these: rows by what one of their fields refers to, where the model keeps no list on the other side.

Metrics are written all the time; looking at every VM for each of them would cost more than the rest of the work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shared.store import NULL, Store, Touched

FIELDS: Final = {"host": "metrics", "VM": "guest_metrics"}
"""Class -> its field."""


class Owners:
    """Follows the rows of the classes above."""

    def __init__(self, store: Store) -> None:
        self._known: dict[str, dict[tuple[str, str], None]] = {}
        for cls in FIELDS:
            for ref, row in store.tables[cls].rows.items():
                self._add(cls, ref, row.fields[FIELDS[cls]])

    def note(self, touched: Iterable[Touched]) -> None:
        """Takes in what a commit did."""
        for item in touched:
            if item.cls in FIELDS:
                to = item.row.fields[FIELDS[item.cls]]
                if item.kind == "del":
                    self._known.get(to, {}).pop((item.cls, item.ref), None)
                else:
                    self._add(item.cls, item.ref, to)

    def _add(self, cls: str, ref: str, to: str) -> None:
        if to != NULL:
            self._known.setdefault(to, {})[cls, ref] = None

    def of(self, store: Store, to: str) -> list[tuple[str, str]]:
        """(class, reference) of the rows that refer to it now."""
        known = self._known.get(to)
        if known is None:
            return []
        for cls, ref in list(known):
            row = store.row(cls, ref)
            if row is None or row[FIELDS[cls]] != to:
                del known[cls, ref]
        if not known:
            del self._known[to]
        return list(known)
