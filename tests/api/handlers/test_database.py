"""`/pool/xmldbdump` over the wire, against the real database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.api.handlers import database
from shared.contracts.db import Change, Create, Delete, Update
from shared.database_dump.reader import Dump, Reader
from shared.database_dump.schema import SCHEMA_VERSION
from shared.store import NULL
from tests.api.core.role_matrix import log_in
from tests.api.handlers.conftest import Site


def parsed(document: bytes) -> Dump:
    reader = Reader()
    reader.feed(document)
    return reader.close()


async def dumped(site: Site) -> bytes:
    reply = await site.ask("GET", "/pool/xmldbdump")
    assert reply.status == 200
    assert "content-length" not in dict(reply.headers)
    return reply.body


async def test_a_dump_has_all_rows_and_nothing_of_sessions(site: Site) -> None:
    dump = parsed(await dumped(site))
    assert dump.schema == SCHEMA_VERSION
    assert 0 < dump.generation <= site.pool.store.generation
    found = {(row.cls, row.ref) for row in dump.rows}
    volatile = {"session", "task", "message"}
    assert found == {(cls, ref) for ref, cls in site.pool.store.by_ref.items() if cls not in volatile}


async def test_a_dump_is_for_pool_administrators(site: Site) -> None:
    session = await log_in(site.pool, "pool-operator")
    assert (await site.ask("GET", "/pool/xmldbdump", session=session.session)).status == 403


# ---- restoring


async def restored(site: Site, document: bytes, query: str = "") -> Any:
    """The task of a restore, when it has ended."""
    task = await site.task()
    await site.ask("PUT", f"/pool/xmldbdump?task_id={task}{query}", document)
    return await site.ended(task)


def changed(document: bytes, *edits: tuple[bytes, bytes]) -> bytes:
    for old, new in edits:
        assert old in document
        document = document.replace(old, new)
    return document


async def test_a_restore_brings_the_rows_back_as_they_were(site: Site) -> None:
    await site.client.call("network.set_name_label", site.pool.ref("network", "network"), "before")
    document = await dumped(site)
    before = {row.ref: row.fields for row in parsed(document).rows}
    network = site.pool.ref("network", "before")
    await site.client.call("network.set_name_label", network, "after")
    new = await site.client.call("network.create", {"name_label": "new", "name_description": "", "other_config": {}})
    generation = site.pool.store.generation
    task = await restored(site, document)
    assert (task["status"], task["error_info"]) == ("success", [])
    store = site.pool.store
    assert store.generation > generation
    assert store.row("network", new) is None
    found = {row.ref: row.fields for row in parsed(await dumped(site)).rows}
    assert found == before


async def test_clients_learn_of_everything_by_their_old_token(site: Site) -> None:
    document = await dumped(site)
    network = await site.client.call(
        "network.create", {"name_label": "new", "name_description": "", "other_config": {}}
    )
    token = (await site.client.call("event.from", ["network"], "", 5.0))["token"]
    await restored(site, document)
    events = (await site.client.call("event.from", ["network"], token, 5.0))["events"]
    assert {(event["operation"], event["ref"]) for event in events} == {
        ("del", network),
        *(("add", ref) for ref in site.pool.store.rows("network")),
    }


async def test_who_restores_stays_and_all_others_have_to_log_in_again(site: Site) -> None:
    other = await site.pool.login()
    await restored(site, await dumped(site))
    assert await site.client.call("pool.get_all")
    assert (await other.refusal("pool.get_all"))[0] == "SESSION_INVALID"


async def test_the_api_process_is_started_anew_after_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FUSE", 0)
    assert not site.pool.stopped
    await restored(site, await dumped(site))
    async with asyncio.timeout(30):
        await site.pool.until_stopped()


async def test_a_dry_run_changes_nothing(site: Site) -> None:
    document = await dumped(site)
    await site.client.call("network.set_name_label", site.pool.ref("network", "network"), "after")
    term = site.pool.store.term
    task = await restored(site, document, "&dry_run=true")
    assert task["status"] == "success"
    assert site.pool.ref("network", "after")
    assert site.pool.store.term == term


async def test_the_machine_keeps_what_it_is_and_another_pools_hosts_are_forgotten(site: Site) -> None:
    """The backup is of another machine, and of a pool of two hosts."""
    pool, host = site.pool, site.api.host_ref
    uuid, address = pool.row("host", host)["uuid"], pool.row("host", host)["address"]
    pif = pool.row("host", host)["PIFs"][0]
    mac = pool.row("PIF", pif)["MAC"]
    other = "OpaqueRef:other-host"
    vm = pool.store.by_name_label("VM", "Other install media")[0]
    rows: list[Change] = [
        Create(cls="host", ref=other, fields={"name_label": "other", "address": "192.0.2.1"}),
        Create(cls="PIF", ref="OpaqueRef:other-pif", fields={"device": "eth7", "host": other, "physical": True}),
        Update(cls="VM", ref=vm, fields={"power_state": "Running", "resident_on": other, "affinity": other}),
    ]
    document = changed(
        await dumped_with(site, rows), (uuid.encode(), b"backup-uuid"), (address.encode(), b"192.0.2.9"),
        (mac.encode(), b"02:00:00:00:00:99"),
    )  # fmt: skip
    task = await restored(site, document)
    assert task["error_info"] == []
    assert list(pool.store.rows("host")) == [host]
    assert list(pool.store.rows("PIF")) == [pif]
    row = pool.row("host", host)
    assert (row["uuid"], row["address"]) == (uuid, address)
    assert (pool.row("PIF", pif)["MAC"], pool.row("PIF", pif)["management"]) == (mac, True)
    assert (pool.row("VM", vm)["power_state"], pool.row("VM", vm)["resident_on"]) == ("Halted", NULL)
    assert pool.row("VM", vm)["affinity"] == NULL


async def dumped_with(site: Site, rows: list[Change]) -> bytes:
    """A dump with rows that are only there while it is made."""
    await site.pool.write(*rows)
    document = await dumped(site)
    await site.pool.write(*(Delete(cls=row.cls, ref=row.ref) for row in rows if isinstance(row, Create)))
    return document


@pytest.mark.parametrize(
    ("edits", "error"),
    [
        ([(b'minor_vsn" value="909"', b'minor_vsn" value="908"')], ["RESTORE_INCOMPATIBLE_VERSION"]),
        ([(b' device="eth0"', b' device="eth5"')], ["RESTORE_TARGET_MISSING_DEVICE", "eth5"]),
        (
            [(b' device="eth0"', b' device="bond0"'), (b' physical="true"', b' physical="false"')],
            ["RESTORE_TARGET_MGMT_IF_NOT_IN_BACKUP", "bond0"],
        ),
    ],
)
async def test_a_backup_that_does_not_fit_is_refused(
    site: Site, edits: list[tuple[bytes, bytes]], error: list[str]
) -> None:
    task = await restored(site, changed(await dumped(site), *edits), "&dry_run=true")
    assert (task["status"], task["error_info"]) == ("failure", error)


@pytest.mark.parametrize("document", [b"", b"<database/>", b"PK\x03\x04", b'<!DOCTYPE x [<!ENTITY a "b">]><database/>'])
async def test_what_is_no_database_is_refused_and_nothing_changes(site: Site, document: bytes) -> None:
    term = site.pool.store.term
    task = await restored(site, document)
    assert task["error_info"][0] == "INTERNAL_ERROR"
    assert task["error_info"][1].startswith("not a database: ")
    assert site.pool.store.term == term


async def test_a_body_of_unknown_length_is_refused(site: Site) -> None:
    task = await site.task()
    assert (await site.ask("PUT", f"/pool/xmldbdump?task_id={task}")).status == 400
    assert (await site.ended(task))["status"] == "failure"


async def test_a_body_that_ends_early_changes_nothing(site: Site) -> None:
    document = await dumped(site)
    task, term = await site.task(), site.pool.store.term
    connection = await site.connect()
    whole = site.request("PUT", f"/pool/xmldbdump?task_id={task}", document)
    await connection.send(whole[: -len(document) // 2])
    connection.close()
    assert (await site.ended(task))["status"] == "failure"
    assert site.pool.store.term == term
