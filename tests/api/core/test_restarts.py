"""Processes that are killed and started again while clients go on."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from services.api import execute
from services.api import unfinished_disks as removing
from services.api.decisions import unfinished_disks
from shared import replica
from shared.bus.memory import MemoryTransport
from shared.contracts.db import Create, MapPut, Update
from shared.contracts.secrets import SECRET_VALUE, SecretId
from shared.contracts.storage import SM_MAKES_FOR, SM_SESSION, VdiInfo
from shared.contracts.vm import Cause
from shared.database import Database
from shared.errors import ApiError
from shared.store import NULL
from tests.api.core import records
from tests.api.core.leftovers import leftovers
from tests.api.harness import Client, Pool
from tests.api.messages.test_vdi import described


def again(pool: Pool, session: str) -> Client:
    client = pool.client()
    client.session = session
    return client


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removing, "EVERY", 0.05)


# ---- the API process


async def test_an_api_process_that_was_killed_leaves_tasks_that_fail_and_no_locks(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    sr, network = pool.ref("SR", "storage"), pool.ref("network", "network")
    await client.call("VBD.create", records.vbd(vm, await client.call("VDI.create", records.vdi(sr))))
    await client.call("VIF.create", records.vif(vm, network))
    gate = pool.hosts[0].hold("vm.start")
    task = await client.call("Async.VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    other = await pool.vm(client, "other")
    held = pool.hosts[1].hold("vm.start")
    starting = client.begin("VM.start_on", other, pool.host_ref(1), False, False)
    await held.reached.wait()
    assert leftovers(pool)
    await pool.kill_api()
    starting.cancel()
    await pool.start_api()
    row = pool.row("task", task)
    assert row["status"] == "failure"
    assert row["error_info"][0] == "INTERNAL_ERROR"
    assert list(pool.store.rows("task")) == [task]
    await asyncio.wait_for(asyncio.gather(gate.cancelled.wait(), held.cancelled.wait()), 30)
    assert leftovers(pool) == {}
    client = again(pool, client.session)
    await pool.hosts[0].heartbeat()
    await pool.hosts[1].heartbeat()
    await client.call("VM.start", vm, False, False)
    await client.call("VM.start", other, False, False)


async def test_an_api_process_that_was_killed_at_work_on_disks_leaves_srs_free(pool: Pool, client: Client) -> None:
    """A disk that came about without a row is found, and goes; a type that was set for a while is put right."""
    sr = pool.ref("SR", "storage")
    [driver] = pool.store.rows("SM")
    await pool.write(MapPut(cls="SM", ref=driver, field="features", key="VDI_CONFIG_CBT", value=1, new=True))
    vdi = await client.call("VDI.create", records.vdi(sr))
    snapshot = await client.call("VDI.snapshot", vdi)
    await pool.write(Update(cls="VDI", ref=snapshot, fields={"cbt_enabled": True}))
    made = pool.hosts[0].after("storage.vdi_create")
    emptied = pool.hosts[0].hold("storage.vdi_data_destroy")
    calls = [client.begin("VDI.create", records.vdi(sr)), client.begin("VDI.data_destroy", snapshot)]
    await asyncio.gather(made.reached.wait(), emptied.reached.wait())
    await pool.kill_api()
    for call in calls:
        call.cancel()
    await pool.start_api()
    await pool.until(lambda: not pool.row("SR", sr)["current_operations"])
    client = again(pool, client.session)
    await client.call("SR.scan", sr)
    await pool.until(lambda: not pool.row("SR", sr)["other_config"])
    await pool.until(lambda: set(pool.store.rows("VDI")) == {vdi, snapshot})
    assert len(pool.disks.srs[pool.row("SR", sr)["uuid"]]) == 2
    await nothing_left(pool)
    assert pool.row("VDI", snapshot)["type"] == "user"


async def test_a_disk_is_there_after_a_kill_if_the_task_that_made_it_has_succeeded_and_else_not(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API is killed after each commit of VDI.create, before it has heard of it."""
    monkeypatch.setattr(execute, "ATTEMPTS", 1)  # what is left of the dead processes does not go on trying
    sr, outcomes = pool.ref("SR", "storage"), list[str]()
    uuid = pool.row("SR", sr)["uuid"]
    while "success" not in outcomes:
        gate = pool.hosts[0].hold("storage.vdi_create")
        task = await client.call("Async.VDI.create", records.vdi(sr))
        await gate.reached.wait()
        committed = not_told_of_commit(pool, monkeypatch, len(outcomes) + 1)
        gate.open()
        await asyncio.wait_for(committed.wait(), 10)
        await pool.kill_api()
        await pool.start_api()
        client = again(pool, client.session)
        await pool.until(partial(_ended, pool, task))
        outcomes.append(pool.row("task", task)["status"])
        made = int(outcomes[-1] == "success")
        await pool.until(partial(_has_disks, pool, uuid, made))
        await nothing_left(pool)
    assert outcomes[0] == "failure"


def _ended(pool: Pool, task: str) -> bool:
    return bool(pool.row("task", task)["status"] != "pending")


def _has_disks(pool: Pool, sr: str, number: int) -> bool:
    """Both rows and the SR (uuid) itself."""
    return len(pool.store.rows("VDI")) == len(pool.disks.srs[sr]) == number


def not_told_of_commit(pool: Pool, monkeypatch: pytest.MonkeyPatch, number: int) -> asyncio.Event:
    """Set when the API, which does not hear of it, has made that many more commits."""
    committed, database, made = asyncio.Event(), pool.api.database, 0
    transact = database.transact

    async def silent(*arguments: Any) -> int:
        nonlocal made
        if committed.is_set():
            raise ApiError("INTERNAL_ERROR", "the process is dead")
        generation = await transact(*arguments)
        made += 1
        if made == number:
            committed.set()
            await asyncio.Event().wait()
        return generation

    monkeypatch.setattr(database, "transact", silent)
    return committed


async def nothing_left(pool: Pool) -> None:
    async with asyncio.timeout(10):
        while leftovers(pool):  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.01)


async def vm_with_disks(pool: Pool, client: Client, number: int) -> tuple[str, set[str]]:
    vm, sr = await pool.vm(client), pool.ref("SR", "storage")
    disks = [await client.call("VDI.create", records.vdi(sr)) for _ in range(number)]
    for disk in disks:
        await client.call("VBD.create", records.vbd(vm, disk))
    return vm, set(disks)


async def test_a_disk_that_is_made_inside_a_clients_own_task_goes_with_the_process(pool: Pool, client: Client) -> None:
    """It was there without a row. What else was made inside that task stays."""
    sr = pool.ref("SR", "storage")
    task = await client.call("task.create", "several", "")
    kept = await client.sending(task=task).call("VDI.create", records.vdi(sr))
    assert pool.row("SR", sr)["other_config"] == {}
    made = pool.hosts[0].after("storage.vdi_create")
    creating = client.sending(task=task).begin("VDI.create", records.vdi(sr))
    await made.reached.wait()
    await pool.kill_api()
    creating.cancel()
    await pool.start_api()
    await pool.hosts[0].heartbeat()
    await pool.until(partial(_has_disks, pool, pool.row("SR", sr)["uuid"], 1))
    await pool.until(lambda: not pool.row("SR", sr)["other_config"])
    assert pool.row("VDI", kept)["other_config"] == {}
    await again(pool, client.session).call("task.set_status", task, "success")
    await nothing_left(pool)


@pytest.mark.parametrize("late", [False, True])
async def test_a_disk_whose_row_its_driver_has_written_goes_with_the_process_that_wanted_it(
    pool: Pool, client: Client, late: bool
) -> None:
    """A driver of SMAPIv1 names it as it likes, and hears nothing of a process that is killed."""
    sr = pool.ref("SR", "storage")
    gate = pool.hosts[0].hold("storage.vdi_create")
    creating = client.begin("VDI.create", records.vdi(sr))
    await gate.reached.wait()
    driver = await pool.login()
    [task] = pool.row("SR", sr)["current_operations"]
    for key, value in ((SM_SESSION, sr), (SM_MAKES_FOR, task)):
        await driver.call("session.add_to_other_config", driver.session, key, value)

    async def introduce() -> None:
        uuid = "0f7b7c9e-7a8e-4a0e-9d5e-8f1d3c2b1a00"
        info = VdiInfo(uuid=uuid, location="loc", virtual_size=1, physical_utilisation=0)
        pool.disks.srs[pool.row("SR", sr)["uuid"]]["loc"] = info
        vdi = await again(pool, driver.session).call("VDI.db_introduce", *described(sr, uuid))
        assert unfinished_disks.owner(pool.row("VDI", vdi)) == task

    if not late:
        await introduce()
    await pool.kill_api()
    creating.cancel()
    await pool.start_api()
    await pool.hosts[0].heartbeat()
    if late:
        await introduce()
    await pool.until(partial(_has_disks, pool, pool.row("SR", sr)["uuid"], 0))
    await nothing_left(pool)


@pytest.mark.parametrize(
    ("message", "arguments", "method", "copies"),
    [
        ("VM.clone", ["copy"], "storage.vdi_clone", False),
        ("VM.snapshot", ["copy", []], "storage.vdi_clone", False),
        ("VM.copy", ["copy", NULL], "storage.vdi_copy", True),
    ],
)
async def test_the_disks_of_a_vm_that_was_being_copied_when_the_api_was_killed_are_removed(
    pool: Pool, client: Client, message: str, arguments: list[Any], method: str, copies: bool
) -> None:
    """The first one is whole and has a row; the second is there without one."""
    vm, disks = await vm_with_disks(pool, client, 2)
    first = pool.hosts[0].after(method)
    copying = client.begin(message, vm, *arguments)
    await first.reached.wait()
    second = pool.hosts[0].after(method)
    first.open()
    await second.reached.wait()
    assert len(pool.store.rows("VDI")) == 3
    await pool.kill_api()
    copying.cancel()
    await pool.start_api()
    await pool.hosts[0].heartbeat()
    sr = pool.row("SR", pool.ref("SR", "storage"))["uuid"]
    await pool.until(lambda: set(pool.store.rows("VDI")) == disks and len(pool.disks.srs[sr]) == 2)
    assert pool.row("SR", pool.ref("SR", "storage"))["other_config"] == {}
    await again(pool, client.session).call(message, vm, *arguments)
    assert len(pool.store.rows("VDI")) == 4
    assert all(row["other_config"] == {} for row in pool.store.rows("VDI").values())


async def test_a_copy_that_is_a_vms_disk_when_the_api_is_killed_is_kept(pool: Pool, client: Client) -> None:
    vm, _ = await vm_with_disks(pool, client, 1)
    snapshot = await client.call("VM.snapshot", vm, "before")
    held = pool.hosts[0].hold("storage.vdi_destroy")  # of the disk that the VM had before
    reverting = client.begin("VM.revert", snapshot)
    await held.reached.wait()
    [vbd] = pool.row("VM", vm)["VBDs"]
    disk = pool.row("VBD", vbd)["VDI"]
    await pool.kill_api()
    reverting.cancel()
    await pool.start_api()
    await pool.hosts[0].heartbeat()
    await pool.until(lambda: not pool.row("VDI", disk)["other_config"])
    await nothing_left(pool)
    assert pool.row("VBD", vbd)["VDI"] == disk


async def test_an_upload_goes_with_the_process_that_had_it_and_with_no_other(pool: Pool, client: Client) -> None:
    sr, own = pool.ref("SR", "storage"), pool.hosts[0].uuid

    async def uploaded(host: str, process: str) -> str:
        mark = {unfinished_disks.MARK: unfinished_disks.upload(host, process)}
        return str(await client.call("VDI.create", records.vdi(sr, other_config=mark)))

    elsewhere = await uploaded(pool.hosts[1].uuid, "1")
    nowhere = await uploaded("11111111-2222-4333-8444-555555555555", "1")
    mine = await uploaded(own, pool.api.process)
    copied = await client.call(
        "VDI.create", records.vdi(sr, other_config=dict(pool.row("VDI", elsewhere)["other_config"]))
    )
    assert pool.row("VDI", copied)["other_config"] == {}
    await pool.kill_api()
    await pool.start_api()
    await pool.hosts[0].heartbeat()
    await pool.until(lambda: set(pool.store.rows("VDI")) == {elsewhere, copied})
    assert {nowhere, mine}.isdisjoint(pool.store.rows("VDI"))


async def test_an_api_process_ends_while_it_removes_what_another_has_left(pool: Pool, client: Client) -> None:
    mark = {unfinished_disks.MARK: unfinished_disks.upload("11111111-2222-4333-8444-555555555555", "1")}
    held = pool.hosts[0].hold("storage.vdi_destroy")
    await client.call("VDI.create", records.vdi(pool.ref("SR", "storage"), other_config=mark))
    await pool.kill_api()
    await pool.start_api()
    await pool.hosts[0].heartbeat()
    await held.reached.wait()
    async with asyncio.timeout(3 * removing.EVERY):
        await pool.kill_api()
    await pool.start_api()
    await pool.hosts[0].heartbeat()
    await pool.until(lambda: not pool.store.rows("VDI"))


async def test_an_api_process_finds_what_happened_while_it_was_away(pool: Pool, client: Client) -> None:
    vms = [await pool.vm(client, f"vm{number}") for number in range(3)]
    for vm in vms:
        await client.call("VM.start_on", vm, pool.host_ref(1), False, False)
    names = [pool.row("VM", vm)["uuid"] for vm in vms]
    await pool.kill_api()
    await pool.hosts[1].guest_halts(names[0], Cause.GUEST_CRASH)
    await pool.hosts[1].guest_reboots(names[1])
    await pool.start_api()
    before = pool.row("VM", vms[1])["domid"]
    await pool.hosts[1].heartbeat()
    await pool.until(lambda: pool.row("VM", vms[0])["power_state"] == "Halted")
    await pool.until(lambda: pool.row("VM", vms[1])["domid"] != before)
    assert pool.row("VM", vms[2])["power_state"] == "Running"


async def test_an_api_process_that_stops_orderly_ends_its_calls(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gate = pool.hosts[0].hold("vm.start")
    task = await client.call("Async.VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    await pool.stop_api()
    assert gate.cancelled.is_set()
    await pool.start_api()
    assert pool.row("task", task)["status"] == "cancelled"
    assert leftovers(pool) == {}


# ---- the database process


async def test_sessions_tasks_and_locks_survive_a_restart_of_the_database(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    gate = pool.hosts[0].hold("vm.start")
    task = await client.call("Async.VM.start_on", vm, pool.host_ref(0), False, False)
    await gate.reached.wait()
    term = pool.store.term
    await pool.kill_db()
    await pool.start_db()
    await pool.until(lambda: pool.store.term > term)
    assert pool.row("VM", vm)["current_operations"] == {task: "start_on"}
    assert await client.call("session.get_auth_user_name", client.session) == "root"
    gate.open()
    await pool.until(lambda: pool.row("task", task)["status"] == "success")
    await pool.idle()
    assert leftovers(pool) == {}


async def test_reads_go_on_while_the_database_is_away_and_writes_wait_for_it(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    await pool.kill_db()
    assert await client.call("VM.get_name_label", vm) == "vm"
    writing = client.begin("VM.set_name_label", vm, "later")
    starting = client.begin("VM.start", vm, False, False)
    await asyncio.sleep(0.05)
    assert not writing.done()
    await pool.start_db()
    await asyncio.gather(writing, starting)
    assert (pool.row("VM", vm)["name_label"], pool.row("VM", vm)["power_state"]) == ("later", "Running")
    assert leftovers(pool) == {}


async def test_a_database_killed_again_and_again_under_load_loses_no_answer_and_no_lock(
    pool: Pool, client: Client
) -> None:
    stop, progress = asyncio.Event(), asyncio.Event()
    acknowledged: dict[str, int] = {}
    errors: list[str] = []

    async def work(number: int) -> None:
        vm = await pool.vm(client, f"vm{number}")
        count = 0
        while not stop.is_set():
            progress.set()
            count += 1
            try:
                await client.call("VM.set_name_description", vm, str(count))
                acknowledged[vm] = count
                await client.call("VM.start", vm, False, False)
                assert pool.row("VM", vm)["power_state"] == "Running"
                await client.call("VM.hard_shutdown", vm)
                assert pool.row("VM", vm)["power_state"] == "Halted"
            except ApiError as error:
                errors.append(str(error))
                if pool.row("VM", vm)["power_state"] != "Halted":
                    await client.call("VM.hard_shutdown", vm)

    workers = [asyncio.create_task(work(number)) for number in range(6)]
    for kills in range(1, 5):
        while sum(acknowledged.values()) < 18 * kills:
            progress.clear()
            await progress.wait()
        await pool.kill_db()
        await pool.start_db()
    stop.set()
    await asyncio.gather(*workers)
    await pool.idle()
    assert errors == []
    for vm, count in acknowledged.items():
        assert int(pool.row("VM", vm)["name_description"]) >= count
    assert leftovers(pool) == {}
    assert len(acknowledged) == 6


# ---- followers


async def test_a_commit_that_was_lost_on_its_way_is_noticed_by_its_writer(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "OVERDUE", 0.05)
    vm = await pool.vm(client)
    await pool.settled()
    followed = pool.api.replica
    resumes, resyncs = followed.resumes, followed.resyncs
    lose_next_event(pool)
    await client.call("VM.set_name_label", vm, "written")
    assert await client.call("VM.get_name_label", vm) == "written"
    assert (followed.resumes, followed.resyncs) == (resumes + 1, resyncs), "all rows need not be fetched for it"


async def test_a_commit_that_was_lost_on_its_way_is_noticed_by_whoever_only_reads(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "CHECK", 0.05)
    member = (await pool.start_api(1)).api
    await pool.settled()
    arrived = asyncio.Event()
    member.replica.watch(lambda touched, _: arrived.set())
    lose_next_event(pool)
    ref = "OpaqueRef:network"
    writer = await pool.broker.connect("writer")
    await Database(writer).transact([Create(cls="network", ref=ref, fields={"name_label": "n", "bridge": "b"})])
    await asyncio.wait_for(arrived.wait(), 30)
    assert member.store.row("network", ref) is not None
    await writer.close()


async def test_a_secret_is_told_by_a_host_that_the_news_of_it_has_not_reached(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks takes one that is not known for gone."""
    monkeypatch.setattr(replica, "OVERDUE", 0.05)
    await pool.start_api(1)
    await pool.settled()
    lose_next_event(pool)
    writer, uuid = await pool.broker.connect("writer"), "5ec00000-0000-4000-8000-000000000001"
    row = Create(cls="secret", ref="OpaqueRef:secret", fields={"uuid": uuid, "value": "open sesame"})
    await Database(writer).transact([row])
    told = await writer.call(SECRET_VALUE, SecretId(uuid=uuid), host=pool.hosts[1].uuid)
    assert told.value == "open sesame"
    with pytest.raises(ApiError, match="UUID_INVALID"):
        await writer.call(SECRET_VALUE, SecretId(uuid="5ec00000-gone"), host=pool.hosts[1].uuid)
    await writer.close()


def lose_next_event(pool: Pool) -> None:
    """The next thing that the database publishes does not reach anybody."""
    transport = pool.db_bus.transport
    assert isinstance(transport, MemoryTransport)
    send = transport.event

    def drop(*_: Any) -> None:
        transport.event = send  # type: ignore[method-assign]

    transport.event = drop  # type: ignore[method-assign, assignment]


async def test_a_connection_that_breaks_loses_nothing(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    for number in range(5):
        writing = client.begin("VM.set_name_label", vm, f"n{number}")
        await asyncio.sleep(0)
        pool.broker.disconnect(pool.api_bus if number % 2 else pool.db_bus)
        await asyncio.wait_for(writing, 10)
        assert await client.call("VM.get_name_label", vm) == f"n{number}"


async def test_a_broker_that_is_killed_and_started_again_loses_nothing(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    starting = client.begin("VM.start", vm, False, False)
    for _ in range(3):
        await asyncio.sleep(0)
    pool.broker.kill()
    await asyncio.sleep(0.05)
    pool.broker.restart()
    await asyncio.wait_for(starting, 10)
    assert pool.row("VM", vm)["power_state"] == "Running"
    assert leftovers(pool) == {}


async def test_an_object_that_cannot_be_judged_does_not_stop_the_process(pool: Pool, client: Client) -> None:
    """A disk whose SR is gone: what it allows cannot be told."""
    lost = Create(cls="VDI", ref="OpaqueRef:lost", fields={"SR": "OpaqueRef:gone", "location": "x", "virtual_size": 1})
    await pool.write(lost)
    await pool.write(Update(cls="VDI", ref="OpaqueRef:lost", fields={"name_label": "lost"}))
    await pool.settled()
    vm = await pool.vm(client)
    await client.call("VM.start", vm, False, False)
    await pool.until(lambda: "clean_shutdown" in pool.row("VM", vm)["allowed_operations"])
    assert not pool.stopped
