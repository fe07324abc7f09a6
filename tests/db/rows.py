"""Small builders for tests that change rows."""

from __future__ import annotations

import uuid
from typing import Any

from shared.contracts.db import Create, Delta, RowChange
from shared.store import Store


def ref() -> str:
    return f"OpaqueRef:{uuid.uuid4()}"


def network(name: str = "n", **fields: Any) -> Create:
    """A persistent row without references."""
    return Create(cls="network", ref=ref(), fields={"name_label": name, **fields})


def vm(name: str = "v", **fields: Any) -> Create:
    return Create(cls="VM", ref=ref(), fields={"name_label": name, **fields})


def task(name: str = "t") -> Create:
    """A volatile row."""
    fields = {
        "name_label": name,
        "created": "20260101T00:00:00Z",
        "finished": "19700101T00:00:00Z",
        "status": "pending",
        "progress": 0.0,
        "type": "<none/>",
    }
    return Create(cls="task", ref=ref(), fields=fields)


def apply(store: Store, changes: list[RowChange]) -> None:
    """As the committer does: one generation."""
    store.apply(Delta(term=1, generation=store.generation + 1, previous=store.generation, changes=changes))
