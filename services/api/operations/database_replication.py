"""Messages of class SR about copies of the pool's database."""

from __future__ import annotations

from services.api import database_replication, stored_databases
from services.api.call import Call
from services.api.decisions import features, metadata_disks, sr_everywhere
from services.api.decisions.rows import existing
from services.api.new_disk import NewDisk
from services.api.operation import operation
from services.api.subcalls import perform
from shared.contracts import storage as contract
from shared.errors import ApiError

TURN = "database replication"
"""Its beginning and end, of all SRs, take turns."""


def _assert(refusal: ApiError | None) -> None:
    if refusal is not None:
        raise refusal


@operation("SR.assert_supports_database_replication")
def assert_supports_database_replication(call: Call, sr: str) -> None:
    _assert(sr_everywhere.check_replication(call.store, sr))


@operation("SR.enable_database_replication")
async def enable_database_replication(call: Call, sr: str) -> None:
    """The disk has the database when it is answered. One that is copied to already stays as it is.

    Raises CANNOT_ENABLE_REDO_LOG [reason] when the first copy fails: a disk that was made for it is gone then.
    """
    features.require(call.store, "dr", "DR")
    _assert(sr_everywhere.check_replication(call.store, sr))
    async with call.api.turns.of(TURN):
        vdi = metadata_disks.usable(call.store, sr)
        if vdi is not None and metadata_disks.is_replicated(call.store, existing(call.store, "VDI", vdi)):
            return
        _assert(metadata_disks.check_room(call.store))
        if vdi is None:
            vdi = await _made(call, sr)
        try:
            await stored_databases.save(call.api, vdi)
        except database_replication.FAILURES as error:
            raise ApiError("CANNOT_ENABLE_REDO_LOG", stored_databases.reason(error)) from error
        await call.transact(metadata_disks.begun(call.store, vdi))


async def _made(call: Call, sr: str) -> str:
    pool = next(iter(call.store.rows("pool")))
    new = NewDisk(call, sr)
    request = contract.VdiCreate(
        sr=new.sr_uuid,
        uuid=new.uuid,
        virtual_size=sr_everywhere.REDO_LOG_SIZE,
        name_label="Metadata for DR",
        name_description="Used for disaster recovery",
        type=metadata_disks.METADATA,
        sm_config={"type": "raw"},
        metadata_of_pool=pool,
    )
    await new.make(contract.VDI_CREATE, request, host=call.api.host_ref)
    given = ("name_label", "name_description", "type", "metadata_of_pool")
    return await new.keep({name: getattr(request, name) for name in given})


@operation("SR.disable_database_replication")
async def disable_database_replication(call: Call, sr: str) -> None:
    """Disks with this pool's database go, whatever has them open."""
    async with call.api.turns.of(TURN):
        for vdi in metadata_disks.ours(call.store, sr):
            await call.transact(metadata_disks.ended(vdi))
            for vbd in list(existing(call.store, "VDI", vdi)["VBDs"]):
                if existing(call.store, "VBD", vbd)["currently_attached"]:
                    await perform(call, "VBD.unplug", vbd)
                await perform(call, "VBD.destroy", vbd)
            async with call.api.turns.of(stored_databases.turn(vdi)):
                await perform(call, "VDI.destroy", vdi)
