"""Messages of class blob, and `create_new_blob` of every class whose objects keep blobs. Their content goes by HTTP
(`services.api.handlers.blob`).
"""

from __future__ import annotations

import uuid as uuids
from typing import Any, Final

from services.api import clock
from services.api.call import Call, new_ref
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import Change, Create, Delete, MapDrop, MapPut
from shared.datamodel import model
from shared.store import Store

DEFAULT_TYPE: Final = "application/octet-stream"

OWNERS: Final = tuple(name for name, declared in model.classes.items() if "blobs" in declared.fields)
"""Classes whose objects keep blobs, by name."""


def _new(ref: str, mime_type: str, public: bool) -> Change:
    fields: dict[str, Any] = {
        "uuid": str(uuids.uuid4()),
        "size": 0,
        "public": public,
        "last_updated": clock.now(),
        "mime_type": mime_type or DEFAULT_TYPE,
    }
    return Create(cls="blob", ref=ref, fields=fields)


@operation("blob.create")
async def create(call: Call, mime_type: str, public: bool) -> str:
    ref = new_ref()
    await call.transact([_new(ref, mime_type, public)])
    return ref


@operation("blob.destroy")
async def destroy(call: Call, self: str) -> None:
    """Its content goes with the row, and whoever keeps it does not any more."""
    existing(call.store, "blob", self)
    await call.transact([*_unlinked(call.store, self), Delete(cls="blob", ref=self)])


def _unlinked(store: Store, blob: str) -> list[Change]:
    return [
        MapDrop(cls=cls, ref=ref, field="blobs", key=name)
        for cls in OWNERS
        for ref, row in store.rows(cls).items()
        for name, kept in row["blobs"].items()
        if kept == blob
    ]


def _add(cls: str) -> None:
    @operation(f"{cls}.create_new_blob")
    async def create_new_blob(call: Call, owner: str, name: str, mime_type: str, public: bool) -> str:
        """Raises MAP_DUPLICATE_KEY when the object has one of that name."""
        existing(call.store, cls, owner)
        ref = new_ref()
        kept = MapPut(cls=cls, ref=owner, field="blobs", key=name, value=ref, new=True)
        await call.transact([_new(ref, mime_type, public), kept])
        return ref


for _cls in OWNERS:
    _add(_cls)
