"""The pool's database in disks of SRs: kept up to date, and looked into."""

from __future__ import annotations

import asyncio
import uuid as uuids
from functools import partial
from typing import Any

import pytest

from services.api.database_replication import DatabaseReplication
from services.api.decisions import metadata_disks
from services.api.stored_databases import save
from services.db.redo.block import reading
from shared.contracts.alerts import ALERT, Alert
from shared.contracts.db import RowCreated, RowDeleted, RowModified, Update
from shared.database_dump.writer import moment, pieces
from shared.errors import ApiError
from shared.redo_blocks import deltas, layout
from shared.redo_blocks.layout import UPSTREAM, Half
from tests.api.core import records
from tests.api.harness import Client
from tests.api.messages.real_storage import Real
from tests.storage.support import MIB

SIZE = 121 * MIB


@pytest.fixture(autouse=True)
def nobody_else_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator's own does nothing: tests begin when it suits them."""
    monkeypatch.setattr("services.api.service.DatabaseReplication", partial(DatabaseReplication, every=3600.0))


@pytest.fixture
async def sr(real: Real) -> str:
    return await real.sr("databases")


async def metadata_disk(real: Real, sr: str, size: int = SIZE) -> str:
    return str(await real.client.call("VDI.create", records.vdi(sr, size, type="metadata")))


async def opened(client: Client, vdi: str) -> Client:
    session = await client.call("VDI.open_database", vdi)
    other = client.sending()
    other.session = session
    return other


def disk_of(real: Real, sr: str) -> str:
    [vdi] = real.pool.row("SR", sr)["VDIs"]
    return str(vdi)


async def test_a_disk_without_a_database_has_none(real: Real, sr: str) -> None:
    for size in (SIZE, MIB):
        disk = await metadata_disk(real, sr, size)
        assert await real.client.call("VDI.read_database_pool_uuid", disk) == ""
        assert (await real.client.refusal("VDI.open_database", disk))[0] == "COULD_NOT_IMPORT_DATABASE"
    assert real.bench.nothing_is_open()


async def test_what_the_original_has_written_is_read_with_its_deltas(real: Real, sr: str) -> None:
    """In the second half: a database, deltas, one that has been seen before, and one that is cut."""
    store, disk = real.pool.store, await metadata_disk(real, sr)
    marker, document = str(uuids.uuid4()).encode(), b"".join(pieces(moment(store)))
    network, generation = real.pool.ref("network", "network"), store.generation
    made = store.rows("network")[network]
    changes: list[Any] = [
        (generation, RowModified(cls="network", ref=network, fields={"name_label": "seen before"})),
        (generation + 1, RowModified(cls="network", ref=network, fields={"name_label": "in a delta"})),
        (generation + 2, RowCreated(cls="network", ref="OpaqueRef:new", fields={**made, "uuid": "new-uuid"})),
        (generation + 3, RowDeleted(cls="SR", ref=sr)),
    ]
    log = b"".join(layout.delta(deltas.encode(*deltas.of_changes([change])), at, marker) for at, change in changes)
    half = marker + layout.number(len(document)) + document + layout.number(generation) + marker + log
    await real.write(disk, 0, layout.header(Half.SECOND))
    await real.write(disk, UPSTREAM.start(Half.SECOND), half + layout.number(1000) + b"cut")
    assert (
        await real.client.call("VDI.read_database_pool_uuid", disk) == next(iter(store.rows("pool").values()))["uuid"]
    )
    other = await opened(real.client, disk)
    assert await other.call("network.get_name_label", network) == "in a delta"
    assert await other.call("network.get_uuid", "OpaqueRef:new") == "new-uuid"
    assert sr not in await other.call("SR.get_all")
    assert (await other.refusal("network.set_name_label", network, "x"))[0] == "RBAC_PERMISSION_DENIED"
    assert await real.client.call("network.get_name_label", network) == "network"
    assert real.bench.nothing_is_open()


async def test_a_database_that_is_damaged_is_refused_with_what_is_wrong(real: Real, sr: str) -> None:
    disk = await metadata_disk(real, sr)
    await real.write(disk, 0, layout.header(Half.FIRST))
    await real.write(disk, UPSTREAM.start(Half.FIRST), b"m" * 36 + layout.number(4) + b"<xm>" + layout.number(1))
    code, why = await real.client.refusal("VDI.open_database", disk)
    assert (code, "marker" in why) == ("COULD_NOT_IMPORT_DATABASE", True)
    assert await real.client.call("VDI.read_database_pool_uuid", disk) == ""


async def test_a_write_that_is_cut_leaves_the_database_before_it(
    real: Real,
    sr: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, network = await metadata_disk(real, sr), real.pool.ref("network", "network")
    await save(real.pool.api, disk)
    await real.client.call("network.set_name_label", network, "later")
    with monkeypatch.context() as patched:
        patched.setattr("services.api.stored_databases._header", lambda half: (_ for _ in ()).throw(OSError("cut")))
        with pytest.raises(OSError, match="cut"):
            await save(real.pool.api, disk)
    assert await (await opened(real.client, disk)).call("network.get_name_label", network) == "network"
    generation = await save(real.pool.api, disk)
    assert await (await opened(real.client, disk)).call("network.get_name_label", network) == "later"
    found = reading.read(await half_of(real, disk))  # as a redo log
    assert (found.database.generation, found.damage, found.lost) == (generation, None, None)
    assert network in {row.ref for row in found.dump.rows}


async def half_of(real: Real, vdi: str) -> bytes:
    location, sr = real.place(vdi)
    async with real.bench.opened(location, sr=sr) as client:
        half = layout.valid_half(await client.read(0, layout.HALVES))
        assert half is not None
        start, end = UPSTREAM.start(half), UPSTREAM.end(half)
        return b"".join([await client.read(at, min(MIB, end - at)) for at in range(start, end, MIB)])


async def test_a_copy_of_the_database_follows_it(
    real: Real,
    sr: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call, network = real.client.call, real.pool.ref("network", "network")
    await call("SR.enable_database_replication", sr)
    disk = disk_of(real, sr)
    row = real.pool.row("VDI", disk)
    assert (row["type"], row["metadata_latest"]) == ("metadata", True)
    assert row["metadata_of_pool"] in real.pool.store.rows("pool")
    await call("SR.enable_database_replication", sr)
    assert disk_of(real, sr) == disk

    saved: asyncio.Queue[int] = asyncio.Queue()

    async def saving(*arguments: Any) -> int:
        generation = await save(*arguments)
        saved.put_nowait(generation)
        return generation

    monkeypatch.setattr("services.api.stored_databases.save", saving)
    running = asyncio.create_task(DatabaseReplication(real.pool.api, every=0.05, share=0).run())
    await saved.get()  # a copy that may have missed something is written anew
    await call("network.set_name_label", network, "later")
    newest = real.pool.store.generation
    async with asyncio.timeout(30):
        while await saved.get() < newest:
            pass
    assert await (await opened(real.client, disk)).call("network.get_name_label", network) == "later"
    await call("SR.disable_database_replication", sr)
    assert real.pool.row("VDI", disk) is None
    running.cancel()
    await asyncio.wait({running})
    assert real.bench.nothing_is_open()


async def test_a_copy_that_fails_tells_people_and_goes_on(
    real: Real,
    sr: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: asyncio.Queue[Alert] = asyncio.Queue()
    await real.pool.api_bus.subscribe(ALERT, lambda alert, _: told.put_nowait(alert))
    await real.client.call("SR.enable_database_replication", sr)
    disk = disk_of(real, sr)
    replication = DatabaseReplication(real.pool.api)

    async def full(*_: object) -> int:
        raise ApiError("SR_FULL", "1", "0")

    with monkeypatch.context() as patched:
        patched.setattr("services.api.stored_databases.save", full)
        await asyncio.gather(*replication.begin())
        assert replication.begin() == []
    assert not real.pool.row("VDI", disk)["metadata_latest"]
    another = DatabaseReplication(real.pool.api)  # as after a restart
    await asyncio.gather(*another.begin())
    broken, healthy = await told.get(), await told.get()
    assert (broken.name, healthy.name, "SR_FULL" in broken.body) == (
        "METADATA_LUN_BROKEN",
        "METADATA_LUN_HEALTHY",
        True,
    )
    assert real.pool.row("VDI", disk)["metadata_latest"]


async def test_that_a_copy_is_well_again_is_said_once_the_database_takes_it(
    real: Real, sr: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await real.client.call("SR.enable_database_replication", sr)
    disk, database = disk_of(real, sr), real.pool.api.database
    await real.pool.write(Update(cls="VDI", ref=disk, fields={"metadata_latest": False}))
    transact, refused = database.transact, asyncio.Event()

    async def refuses_once(*arguments: Any) -> int:
        if not refused.is_set():
            refused.set()
            raise ApiError("INTERNAL_ERROR", "the database is away")
        return await transact(*arguments)

    monkeypatch.setattr(database, "transact", refuses_once)
    replication = DatabaseReplication(real.pool.api, share=0)
    await asyncio.gather(*replication.begin())
    assert not real.pool.row("VDI", disk)["metadata_latest"]
    await asyncio.gather(*replication.begin())
    assert real.pool.row("VDI", disk)["metadata_latest"]
    assert replication.begin() == []


async def test_a_copy_that_cannot_begin_leaves_no_disk(
    real: Real,
    sr: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.api.stored_databases.write", _broken)
    assert (await real.client.refusal("SR.enable_database_replication", sr))[0] == "CANNOT_ENABLE_REDO_LOG"
    assert real.pool.row("SR", sr)["VDIs"] == []


async def _broken(*_: object) -> None:
    raise ApiError("SR_FULL", "1", "0")


async def test_snapshots_and_clones_of_a_copy_keep_what_they_have(real: Real, sr: str) -> None:
    call, network = real.client.call, real.pool.ref("network", "network")
    await call("SR.enable_database_replication", sr)
    disk = disk_of(real, sr)
    kept = [await call("VDI.snapshot", disk), await call("VDI.clone", disk)]
    await call("network.set_name_label", network, "later")
    begun = DatabaseReplication(real.pool.api).begin()
    assert len(begun) == 1
    await asyncio.wait(begun)
    assert await (await opened(real.client, disk)).call("network.get_name_label", network) == "later"
    for vdi in kept:
        assert await (await opened(real.client, vdi)).call("network.get_name_label", network) == "network"
    await call("SR.enable_database_replication", sr)
    assert metadata_disks.replicated(real.pool.store) == [disk]


async def test_there_are_eight_copies_at_most(real: Real, sr: str) -> None:
    pool = next(iter(real.pool.store.rows("pool")))
    for _ in range(8):
        disk = await metadata_disk(real, sr, MIB)
        own = real.pool.row("VDI", disk)["uuid"]
        fields = {"metadata_of_pool": pool, "other_config": {"database_replication": own}}
        await real.pool.write(Update(cls="VDI", ref=disk, fields=fields))
    assert await real.client.refusal("SR.enable_database_replication", sr) == ["NO_MORE_REDO_LOGS_ALLOWED"]
