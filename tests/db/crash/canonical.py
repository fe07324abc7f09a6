"""All rows as text: two stores have the same rows if, and only if, they have the same text.

One line for each row, in order of class and reference: class, reference, generations of its making and last change,
and every field, also the lists that follow from references in other rows, as JSON. Such lists are sorted: they are
sets, and a store that was loaded puts them in the order of rows, one that follows in the order of changes. Lines are
given by their digests, so that thousands of states can be kept; `bodies` has the rows behind them.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from shared.store import LINKS, Store


class Lines:
    """Makes texts. What did not change since the last one is not written again: a row's map of fields is its state."""

    def __init__(self, bodies: dict[str, str]) -> None:
        self._bodies = bodies
        self._known: dict[str, tuple[Any, int, int, str]] = {}

    def text(self, store: Store) -> str:
        fresh: dict[str, tuple[Any, int, int, str]] = {}
        lines = []
        for cls, table in store.tables.items():
            for ref, row in table.rows.items():
                known = self._known.get(ref)
                if known is None or known[0] is not row.fields or known[1:3] != (row.created, row.modified):
                    known = (row.fields, row.created, row.modified, self._line(cls, ref, row))
                fresh[ref] = known
                lines.append(known[3])
        self._known = fresh
        return "\n".join(sorted(lines))

    def _line(self, cls: str, ref: str, row: Any) -> str:
        derived = {*LINKS[cls].derived, *LINKS[cls].right_ends}
        plain = {name: sorted(value) if name in derived else value for name, value in row.fields.items()}
        fields = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS, default=_plain).decode()
        body = f"{cls} {ref} {row.created} {row.modified} {fields}"
        digest = hashlib.sha256(body.encode()).hexdigest()[:16]
        self._bodies[digest] = body
        return f"{cls} {ref} {digest}"


def _plain(value: Any) -> Any:
    """The store's lists and maps are kinds of their own."""
    return list(value) if isinstance(value, list | tuple) else dict(value)


def spelled_out(text: str, bodies: dict[str, str]) -> str:
    """A checker's words with the rows in the place of their digests."""
    for digest, body in bodies.items():
        if digest in text:
            text = text.replace(digest, body)
    return text
