"""Messages of class VTPM. What a VTPM holds is kept in a secret; no host gives one to a guest yet, so that `VM.start`
refuses a VM that has one.
"""

from __future__ import annotations

import base64
import binascii

from services.api.allowed import published
from services.api.call import Call
from services.api.decisions import features, vtpms
from services.api.decisions.fresh import ref_of
from services.api.decisions.rows import existing
from services.api.locking import decide
from services.api.operation import Lock, operation
from services.api.operations.vm_copies import fresh
from shared.contracts.db import Change, Create, Delete, Update
from shared.errors import ApiError, internal_error
from shared.store import Store


@operation("VTPM.create", Lock("VM", "create_vtpm"))
async def create(call: Call, vm: str, is_unique: bool) -> str:
    if not features.is_enabled(call.store, "vtpm"):
        raise ApiError("FEATURE_RESTRICTED", "restrict_vtpm")
    changes = vtpms.created(vm, fresh, is_unique=is_unique)
    call.on_failure += [Delete(cls=change.cls, ref=change.ref) for change in changes]
    await call.transact(changes)
    return changes[-1].ref


@operation("VTPM.destroy")
async def destroy(call: Call, self: str) -> None:
    vm: str = existing(call.store, "VTPM", self)["VM"]

    def decision(store: Store) -> list[Change]:
        refusal = vtpms.check(store, self, "destroy")
        if refusal is not None:
            raise refusal
        gone = vtpms.removed(store, self)
        left = [ref for ref in existing(store, "VM", vm)["VTPMs"] if ref != self]
        without = Update(cls="VM", ref=vm, fields={"VTPMs": left})  # as the relation will have it
        return [*gone, *published(store, "VM", vm, [*gone, without])]

    await decide(call, "VM", vm, decision)


@operation("VTPM.get_contents")
def get_contents(call: Call, self: str) -> str:
    return vtpms.contents_of(call.store, self)


@operation("VTPM.set_contents")
async def set_contents(call: Call, self: str, contents: str) -> None:
    """`contents`: base64. They get a secret of their own, the one before goes."""
    existing(call.store, "VTPM", self)
    try:
        base64.b64decode(contents, validate=True)
    except (binascii.Error, ValueError) as error:
        raise internal_error(f"the contents are not base64: {error}") from error
    secret = fresh()

    def decision(store: Store) -> list[Change]:
        new = ref_of(secret)
        return [
            Create(cls="secret", ref=new, fields={"uuid": secret, "value": contents, "other_config": {}}),
            Delete(cls="secret", ref=existing(store, "VTPM", self)["contents"]),
            Update(cls="VTPM", ref=self, fields={"contents": new}),
        ]

    await decide(call, "VTPM", self, decision)
