"""A sound little database, and ways to spoil it."""

from __future__ import annotations

from typing import Any

from services.db.transaction import resolve
from shared.contracts.db import Change, Create, SnapshotRow, Transact
from shared.store import Store
from tests.db import rows

POOL, HOST, METRICS, NETWORK = "OpaqueRef:pool", "OpaqueRef:host", "OpaqueRef:metrics", "OpaqueRef:network"
SR, VDI, VM, VBD, GROUP = "OpaqueRef:sr", "OpaqueRef:vdi", "OpaqueRef:vm", "OpaqueRef:vbd", "OpaqueRef:group"


def store() -> Store:
    changes: list[Change] = [
        Create(cls="pool", ref=POOL, fields={"uuid": "u-pool", "master": HOST}),
        Create(cls="host_metrics", ref=METRICS, fields={"uuid": "u-metrics"}),
        Create(cls="host", ref=HOST, fields={"uuid": "u-host", "name_label": "host", "metrics": METRICS}),
        Create(cls="network", ref=NETWORK, fields={"uuid": "u-network", "name_label": "net"}),
        Create(cls="SR", ref=SR, fields={"uuid": "u-sr", "name_label": "sr"}),
        Create(cls="VDI", ref=VDI, fields={"uuid": "u-vdi", "SR": SR}),
        Create(cls="VM_group", ref=GROUP, fields={"uuid": "u-group", "name_label": "group"}),
        Create(cls="VM", ref=VM, fields={"uuid": "u-vm", "name_label": "vm", "groups": [GROUP], "resident_on": HOST}),
        Create(cls="VBD", ref=VBD, fields={"uuid": "u-vbd", "VM": VM, "VDI": VDI}),
    ]
    made = Store()
    rows.apply(made, resolve(made, Transact(changes=changes)))
    return made


class Kept:
    """Rows as they are kept, to be spoiled."""

    def __init__(self) -> None:
        made = store()
        self.rows = list(made.snapshot())
        self.generation = made.generation

    def row(self, ref: str) -> SnapshotRow:
        return next(row for row in self.rows if row.ref == ref)

    def set(self, ref: str, **fields: Any) -> None:
        self.row(ref).fields.update(fields)

    def lose(self, ref: str, field: str) -> None:
        del self.row(ref).fields[field]

    def drop(self, ref: str) -> None:
        self.rows.remove(self.row(ref))

    def again(self, ref: str, /, **other: Any) -> None:
        """The row a second time."""
        row = self.row(ref)
        given = {"cls": row.cls, "ref": ref, "created": row.created, "modified": row.modified, "fields": row.fields}
        self.rows.append(SnapshotRow(**{**given, **other}))
