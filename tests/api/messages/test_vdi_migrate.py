"""VDI.pool_migrate: where a disk and its rows are when it has moved, or has not."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from typing import Any

import pytest

from services.api import unfinished_moves
from services.api.decisions.unfinished_moves import KEY, Move, forgotten, noted
from shared.contracts import transfer, vm_disks
from shared.contracts.db import MapPut, Update
from shared.errors import ApiError
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.fake_host import Gate
from tests.api.harness import Client, Pool

MOVE = "vm.vbd_move"


@pytest.fixture
async def other(pool: Pool, client: Client) -> str:
    """Another SR, of a driver that mirrors."""
    [driver] = pool.store.rows("SM")
    await pool.write(MapPut(cls="SM", ref=driver, field="features", key="VDI_MIRROR", value=1, new=True))
    return str(await client.call("SR.create", pool.host_ref(0), {}, 0, "other", "", "fake", "", True, {}))


@pytest.fixture
async def disk(pool: Pool, client: Client) -> str:
    made = str(await client.call("VDI.create", records.vdi(pool.ref("SR", "storage"), name_label="mine")))
    pool.disks.content[location(pool, made)] = "data"
    return made


@pytest.fixture
async def vm(pool: Pool, client: Client, disk: str) -> str:
    made = await pool.vm(client)
    await client.call("VBD.create", records.vbd(made, disk))
    return made


@pytest.fixture
async def running(client: Client, vm: str) -> str:
    await client.call("VM.start", vm, False, False)
    return vm


def location(pool: Pool, vdi: str) -> str:
    return str(pool.row("VDI", vdi)["location"])


def held(pool: Pool, sr: str) -> list[str]:
    """Locations of the disks that an SR has."""
    return list(pool.disks.srs[pool.row("SR", sr)["uuid"]])


def of_vm(pool: Pool, vm: str, vdi: str) -> bool:
    return any(pool.row("VBD", vbd)["VDI"] == vdi for vbd in pool.row("VM", vm)["VBDs"])


async def test_a_running_vm_goes_on_with_its_disk_in_another_sr(
    pool: Pool, client: Client, other: str, disk: str, running: str
) -> None:
    former = location(pool, disk)
    new = await client.call("VDI.pool_migrate", disk, other, {})
    assert pool.row("VDI", disk) is None
    assert (pool.row("VDI", new)["SR"], pool.row("VDI", new)["name_label"]) == (other, "mine")
    assert held(pool, other) == [location(pool, new)]
    assert former not in held(pool, pool.ref("SR", "storage"))
    assert pool.disks.content[location(pool, new)] == "data"
    assert of_vm(pool, running, new)
    assert pool.host_of(running).served.count(MOVE) == 1
    assert leftovers(pool) == {}
    await client.call("VM.hard_shutdown", running)
    await client.call("VM.start", running, False, False)
    assert location(pool, new) in pool.disks.open


async def test_a_disk_of_a_halted_vm_is_copied(pool: Pool, client: Client, other: str, disk: str, vm: str) -> None:
    new = await client.call("VDI.pool_migrate", disk, other, {})
    assert pool.row("VDI", disk) is None
    assert pool.disks.content[location(pool, new)] == "data"
    assert of_vm(pool, vm, new)
    assert any(isinstance(one, transfer.Copy) for one in pool.disks.asked)
    assert leftovers(pool) == {}


async def test_a_disk_stays_in_the_sr_where_it_is(
    pool: Pool, client: Client, other: str, disk: str, running: str
) -> None:
    assert await client.call("VDI.pool_migrate", disk, pool.ref("SR", "storage"), {}) == disk
    assert MOVE not in pool.host_of(running).served
    assert leftovers(pool) == {}


async def test_snapshots_of_the_vm_have_their_disks_moved_too(
    pool: Pool, client: Client, other: str, disk: str, running: str
) -> None:
    snapshot = await client.call("VM.snapshot", running, "before")
    [vbd] = pool.row("VM", snapshot)["VBDs"]
    former = pool.row("VBD", vbd)["VDI"]
    new = await client.call("VDI.pool_migrate", disk, other, {})
    moved = pool.row("VDI", pool.row("VBD", vbd)["VDI"])
    assert pool.row("VDI", former) is None
    assert (moved["SR"], moved["is_a_snapshot"], moved["snapshot_of"]) == (other, True, new)
    assert leftovers(pool) == {}


@pytest.mark.parametrize("problem", ["MIRROR_FAILED", "VM_BAD_POWER_STATE"])
async def test_a_mirror_that_breaks_leaves_nothing_on_the_target(
    pool: Pool, client: Client, other: str, disk: str, running: str, problem: str
) -> None:
    pool.host_of(running).fail(MOVE, ApiError(problem, location(pool, disk)))
    assert (await client.refusal("VDI.pool_migrate", disk, other, {}))[0] == problem
    assert held(pool, other) == []
    assert of_vm(pool, running, disk)
    assert leftovers(pool) == {}


async def test_a_target_that_is_full_changes_nothing(
    pool: Pool, client: Client, other: str, disk: str, running: str
) -> None:
    for host in pool.hosts:
        host.fail("storage.vdi_create", ApiError("SR_FULL", 2, 1))
    assert await client.refusal("VDI.pool_migrate", disk, other, {}) == ["SR_FULL", "2", "1"]
    assert of_vm(pool, running, disk)
    assert leftovers(pool) == {}


@pytest.mark.parametrize("after", [False, True])
async def test_a_move_that_is_cancelled_has_come_about_or_not(
    pool: Pool, client: Client, other: str, disk: str, running: str, after: bool
) -> None:
    host = pool.host_of(running)
    gate = host.after(MOVE) if after else host.hold(MOVE)
    task = await client.call("Async.VDI.pool_migrate", disk, other, {})
    await gate.reached.wait()
    assert list(pool.row("VDI", disk)["current_operations"].values()) == ["mirror"]
    assert list(pool.row("VM", running)["current_operations"].values()) == ["migrate_send"]
    await client.call("task.cancel", task)
    await pool.until(lambda: pool.row("task", task)["status"] == "cancelled")
    await pool.idle()
    if after:
        [new] = pool.row("SR", other)["VDIs"]
        assert of_vm(pool, running, new)
        assert (pool.row("VDI", disk), len(held(pool, pool.ref("SR", "storage")))) == (None, 0)
    else:
        assert of_vm(pool, running, disk)
        assert (pool.row("SR", other)["VDIs"], held(pool, other)) == ([], [])
    assert leftovers(pool) == {}


async def test_both_disks_are_kept_when_nobody_knows_which_one_the_vm_had(
    pool: Pool, client: Client, other: str, disk: str, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm_disks, "VBD_MOVE", dataclasses.replace(vm_disks.VBD_MOVE, timeout=0.2))
    host = pool.host_of(running)
    gate = host.hold(MOVE)
    moving = client.begin("VDI.pool_migrate", disk, other, {})
    await gate.reached.wait()
    host.vms.clear()
    with pytest.raises(ApiError):
        await moving
    assert len(held(pool, other)) == len(pool.row("SR", other)["VDIs"]) == 1
    assert pool.row("VDI", disk) is not None


async def test_a_disk_moves_under_the_vm_that_runs_and_the_others_follow(
    pool: Pool, client: Client, other: str, disk: str, vm: str
) -> None:
    second = await pool.vm(client, "second")
    await client.call("VBD.create", records.vbd(second, disk))
    await client.call("VM.start", second, False, False)
    new = await client.call("VDI.pool_migrate", disk, other, {})
    assert of_vm(pool, vm, new)
    assert of_vm(pool, second, new)
    assert pool.host_of(second).served.count(MOVE) == 1


async def test_a_disk_that_two_running_vms_have_does_not_move(
    pool: Pool, client: Client, other: str, disk: str, running: str
) -> None:
    second = await pool.vm(client, "second")
    vbd = await client.call("VBD.create", records.vbd(second, disk))
    await pool.write(Update(cls="VBD", ref=vbd, fields={"currently_attached": True}))
    assert await client.refusal("VDI.pool_migrate", disk, other, {}) == ["VDI_IN_USE", disk, "mirror"]


async def test_a_vm_whose_host_does_not_see_the_target_stays_with_its_disk(
    pool: Pool, client: Client, other: str, disk: str, running: str
) -> None:
    home = pool.row("VM", running)["resident_on"]
    for pbd in pool.row("SR", other)["PBDs"]:
        if pool.row("PBD", pbd)["host"] == home:
            await client.call("PBD.unplug", pbd)
    assert await client.refusal("VDI.pool_migrate", disk, other, {}) == ["VM_REQUIRES_SR", running, other]


async def _killed(pool: Pool, client: Client, disk: str, other: str, gates: list[Gate]) -> None:
    """The API, when a move has come to one of the gates."""
    client.begin("VDI.pool_migrate", disk, other, {})
    async with asyncio.timeout(10):
        await asyncio.wait({asyncio.create_task(gate.reached.wait()) for gate in gates}, return_when="FIRST_COMPLETED")
    await pool.kill_api()


@pytest.mark.parametrize("method", ["storage.vdi_create", "storage.copy"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_move_whose_api_is_killed_leaves_no_disk(
    pool: Pool, client: Client, other: str, disk: str, vm: str, method: str, after: bool
) -> None:
    """Whether the SR had made it, and whether there was a row, or not."""
    gates = [host.after(method) if after else host.hold(method) for host in pool.hosts]
    await _killed(pool, client, disk, other, gates)
    for gate in gates:
        gate.open()
    await pool.start_api()
    await pool.until(lambda: KEY not in pool.row("VDI", disk)["sm_config"])
    assert held(pool, other) == pool.row("SR", other)["VDIs"] == []
    assert of_vm(pool, vm, disk)
    assert leftovers(pool) == {}


async def test_a_disk_that_is_open_for_a_copy_that_nobody_makes_is_let_go_of(
    pool: Pool, client: Client, other: str, disk: str, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader's host is silent."""
    monkeypatch.setattr(unfinished_moves, "EVERY", 0.05)
    await _killed(pool, client, disk, other, [host.hold("storage.copy") for host in pool.hosts])
    for host in pool.hosts:
        host.fail("storage.vdi_destroy", ApiError("VDI_IN_USE", "", "destroy"))
    await pool.start_api()
    await pool.until(lambda: KEY not in pool.row("VDI", disk)["sm_config"])
    assert all("storage.receive_end" in host.served for host in pool.hosts)
    assert held(pool, other) == pool.row("SR", other)["VDIs"] == []


async def test_what_is_left_of_a_move_is_looked_at_again_when_the_database_was_away(
    pool: Pool, other: str, disk: str, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished_moves, "EVERY", 0.05)
    looks = unfinished_moves.UnfinishedMoves(pool.api)
    write, refusals = pool.api.database.transact, 2

    async def refuses(*arguments: Any) -> int:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise ApiError("INTERNAL_ERROR", "the database is away")
        return await write(*arguments)

    move = Move(disk, pool.row("SR", other)["uuid"], str(uuid.uuid4()), "OpaqueRef:gone", "copy")
    await pool.write(noted(move))
    monkeypatch.setattr(pool.api.database, "transact", refuses)
    running = asyncio.create_task(looks.run())
    await pool.until(lambda: KEY not in pool.row("VDI", disk)["sm_config"])
    assert not refusals
    assert not running.done()
    running.cancel()
    await asyncio.wait({running})


@pytest.mark.parametrize("after", [False, True])
async def test_a_mirror_whose_api_is_killed_is_ended_as_the_host_says(
    pool: Pool, client: Client, other: str, disk: str, running: str, after: bool
) -> None:
    host = pool.host_of(running)
    gate = host.after(MOVE) if after else host.hold(MOVE)
    client.begin("VDI.pool_migrate", disk, other, {})
    await gate.reached.wait()
    await pool.kill_api()
    if after:
        gate.open()
    await pool.start_api()
    await host.heartbeat()
    if after:
        await pool.until(lambda: pool.row("VDI", disk) is None)
        await pool.idle()
        [new] = pool.row("SR", other)["VDIs"]
        assert (of_vm(pool, running, new), held(pool, pool.ref("SR", "storage"))) == (True, [])
    else:
        await pool.until(lambda: KEY not in pool.row("VDI", disk)["sm_config"])
        assert held(pool, other) == pool.row("SR", other)["VDIs"] == []
        assert of_vm(pool, running, disk)
    assert leftovers(pool) == {}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("remembered", [False, True])
async def test_a_mirror_whose_vm_has_ended_while_the_api_was_away_is_ended_if_the_host_remembers_its_disk(
    pool: Pool, client: Client, other: str, disk: str, running: str, after: bool, remembered: bool
) -> None:
    host, sr = pool.host_of(running), pool.ref("SR", "storage")
    gate = host.after(MOVE) if after else host.hold(MOVE)
    client.begin("VDI.pool_migrate", disk, other, {})
    await gate.reached.wait()
    await pool.kill_api()
    if after:
        gate.open()
    [name] = host.vms
    del host.vms[name]
    host.remembered |= {name} if remembered else set()
    await pool.start_api()
    for each in pool.hosts:
        await each.heartbeat()
    await pool.until(lambda: pool.row("VM", running)["power_state"] == "Halted")
    await pool.until(lambda: KEY not in (pool.row("VDI", disk) or {"sm_config": {}})["sm_config"])
    await pool.idle()
    one = (0, 1) if after else (1, 0)
    assert (len(held(pool, sr)), len(held(pool, other))) == (one if remembered else (1, 1))
    assert of_vm(pool, running, pool.row("SR", other)["VDIs"][0] if after and remembered else disk)


async def test_a_vm_waits_until_it_is_known_which_of_its_disks_counts(
    pool: Pool, client: Client, other: str, disk: str, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.decisions.unfinished_moves.left", lambda *_: [])  # its host is silent
    [vbd] = pool.row("VDI", disk)["VBDs"]
    await pool.write(noted(Move(disk, pool.row("SR", other)["uuid"], str(uuid.uuid4()), "OpaqueRef:gone", "mirror")))
    refusal = ["OTHER_OPERATION_IN_PROGRESS", "VDI", disk, "mirror", "OpaqueRef:gone"]
    assert await client.refusal("VM.start", vm, False, False) == refusal
    await pool.write(forgotten(disk))
    await client.call("VM.start", vm, False, False)
    await client.call("VBD.unplug", vbd)
    await pool.write(noted(Move(disk, pool.row("SR", other)["uuid"], str(uuid.uuid4()), "OpaqueRef:gone", "mirror")))
    assert await client.refusal("VBD.plug", vbd) == refusal


async def test_a_former_disk_that_could_not_be_removed_goes_when_it_can(
    pool: Pool, client: Client, other: str, disk: str, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished_moves, "EVERY", 0.05)
    for host in pool.hosts:
        host.fail("storage.vdi_destroy", ApiError("VDI_IN_USE", location(pool, disk), "destroy"))
    new = await client.call("VDI.pool_migrate", disk, other, {})
    assert pool.row("VDI", disk) is not None
    assert of_vm(pool, vm, new)
    await pool.kill_api()
    await pool.start_api()
    await pool.until(lambda: pool.row("VDI", disk) is None)
    assert held(pool, pool.ref("SR", "storage")) == []


async def test_a_disk_goes_to_another_image_format_if_the_sr_has_it(
    pool: Pool, client: Client, other: str, disk: str, vm: str
) -> None:
    [driver] = pool.store.rows("SM")
    await pool.write(Update(cls="SM", ref=driver, fields={"supported_image_formats": ["vhd", "qcow2"]}))
    refusal = await client.refusal("VDI.pool_migrate", disk, other, {"dest-img-format": "raw"})
    assert (refusal[0], "raw" in refusal[1]) == ("VDI_INCOMPATIBLE_TYPE", True)
    assert leftovers(pool) == {}
    new = await client.call("VDI.pool_migrate", disk, other, {"dest-img-format": "qcow2"})
    assert pool.row("VDI", new)["sm_config"] == {"image-format": "qcow2"}


async def test_a_move_that_nobody_could_write_down_shows_when_its_host_speaks_again(
    pool: Pool, client: Client, other: str, disk: str, running: str
) -> None:
    """The API was killed between the change of disks and the rows."""
    new = await client.call("VDI.create", records.vdi(other))
    host = pool.host_of(running)
    [vbd] = pool.row("VM", running)["VBDs"]
    [name] = host.vms
    host.forget_history(name, disks={vbd: new})
    await pool.kill_api()
    await pool.start_api()
    await host.heartbeat()
    await pool.until(lambda: pool.row("VBD", vbd)["VDI"] == new)
