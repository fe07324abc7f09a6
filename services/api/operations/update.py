"""Messages of classes pool_update, pool_patch and host_patch, as far as they are about rows and disks.

Updates are discs with packages. Nobody opens them here, so that none is ever introduced; records of them may come with
a database.
"""

from __future__ import annotations

from services.api.call import Call
from services.api.construct import remove
from services.api.decisions.rows import existing
from services.api.decisions.vdi_types import incompatible
from services.api.locking import decide
from services.api.operation import operation
from services.api.subcalls import perform
from shared.contracts.db import Change, Delete, Update
from shared.errors import ApiError
from shared.store import NULL, Store


@operation("pool_update.introduce", built=False)
def introduce(call: Call, vdi: str) -> str:
    kind: str = existing(call.store, "VDI", vdi)["type"]
    if kind == "cbt_metadata":
        raise incompatible(vdi, kind)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("pool_update.pool_apply", built=False)
def pool_apply(call: Call, self: str) -> None:
    done = set(existing(call.store, "pool_update", self)["hosts"])
    if done.issuperset(call.store.rows("host")):
        raise ApiError("UPDATE_ALREADY_APPLIED_IN_POOL", self)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("pool_update.pool_clean")
async def pool_clean(call: Call, self: str) -> None:
    """Its disc goes, the record stays."""
    await perform(call, "VDI.destroy", existing(call.store, "pool_update", self)["vdi"])
    await call.transact([Update(cls="pool_update", ref=self, fields={"vdi": NULL})])


@operation("pool_update.destroy")
async def destroy(call: Call, self: str) -> None:
    """With the patch that stands for it among clients which know patches only."""

    def decision(store: Store) -> list[Change]:
        if existing(store, "pool_update", self)["hosts"]:
            raise ApiError("UPDATE_IS_APPLIED")
        patches = [ref for ref, row in store.rows("pool_patch").items() if row["pool_update"] == self]
        return [Delete(cls="pool_update", ref=self), *(Delete(cls="pool_patch", ref=ref) for ref in patches)]

    await decide(call, "pool_update", self, decision)


@operation("pool_update.resync_host", forwarded=True)
async def resync_host(call: Call, host: str) -> None:
    """The host has what was applied on it, which is nothing. What other versions left goes: patches without an update,
    updates that no host has though their patch is on one.
    """

    def decision(store: Store) -> list[Change]:
        changes: list[Change] = [Update(cls="host", ref=host, fields={"updates": []})]
        updates = store.rows("pool_update")
        for ref, patch in store.rows("pool_patch").items():
            update = updates.get(patch["pool_update"])
            if update is None:
                own = [each for each in patch["host_patches"] if store.get("host_patch", each, "host") == host]
                changes += [*(Delete(cls="host_patch", ref=each) for each in own), Delete(cls="pool_patch", ref=ref)]
            elif patch["host_patches"] and not set(update["hosts"]) - {host}:
                changes += [Delete(cls="pool_update", ref=patch["pool_update"]), Delete(cls="pool_patch", ref=ref)]
        return changes

    await decide(call, "host", host, decision)


@operation("pool_patch.pool_clean")
async def clean_patch(call: Call, self: str) -> None:
    await perform(call, "pool_update.pool_clean", existing(call.store, "pool_patch", self)["pool_update"])


@operation("pool_patch.destroy")
async def destroy_patch(call: Call, self: str) -> None:
    await perform(call, "pool_update.destroy", existing(call.store, "pool_patch", self)["pool_update"])


@operation("pool_patch.clean")
def clean(call: Call, self: str) -> None:
    """Patches leave no file on a host since they are updates: there is none to remove."""
    existing(call.store, "pool_patch", self)


@operation("pool_patch.clean_on_host", forwarded=True)
def clean_on_host(call: Call, self: str, host: str) -> None:
    existing(call.store, "pool_patch", self)


@operation("host_patch.destroy")
async def destroy_host_patch(call: Call, self: str) -> None:
    await remove(call, "host_patch", self)


@operation("host_patch.apply")
def apply_host_patch(call: Call, self: str) -> str:
    """As with the original since patches are applied by `pool_patch.apply`."""
    existing(call.store, "host_patch", self)
    raise ApiError("MESSAGE_DEPRECATED")
