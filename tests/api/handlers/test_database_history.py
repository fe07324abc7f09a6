"""`/db_history` and the extension `db.get_history`, against the real database."""

from __future__ import annotations

import json
import xmlrpc.client
from typing import Any

import pytest

from services.api.edge.handlers import HANDLERS
from services.api.role_rows import holders
from shared.logs import track_id
from tests.api.core.role_matrix import log_in
from tests.api.handlers.conftest import Site

Entry = dict[str, Any]


async def history(site: Site, query: str = "") -> list[Entry]:
    reply = await site.ask("GET", f"/db_history?{query}")
    assert (reply.status, dict(reply.headers)["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in reply.body.splitlines()]


async def extension(site: Site, **words: str) -> Any:
    return await site.client.call("db.get_history", words)


async def test_a_field_that_was_set_is_told_with_call_user_and_session(site: Site) -> None:
    network = site.pool.ref("network", "network")
    await site.client.call("network.set_name_label", network, "renamed")
    [entry] = await history(site, f"ref={network}&limit=1")
    assert (entry["kind"], entry["call"], entry["user"]) == ("commit", "network.set_name_label", "root")
    assert (entry["session"], entry["task"]) == (track_id(site.client.session), "")
    assert entry["generation"] <= site.pool.store.generation
    [change] = entry["changes"]
    assert change == {
        "class": "network",
        "ref": network,
        "uuid": site.pool.row("network", network)["uuid"],
        "name": "renamed",
        "kind": "mod",
        "fields": {"name_label": {"old": "network", "new": "renamed"}},
    }


async def test_what_a_call_did_on_a_host_is_told_under_its_task_to_the_end(site: Site) -> None:
    template = site.pool.ref("VM", "Tiny guest")
    vm = await site.client.call("VM.clone", template, "web")
    await site.client.call("VM.provision", vm)
    await site.client.call("VM.start", vm, False, False)
    entries = await history(site, f"ref={vm}&field=power_state")
    assert entries[0]["changes"][0]["fields"]["power_state"] == {"old": "Halted", "new": "Running"}
    assert (entries[0]["call"], entries[0]["user"]) == ("VM.start", "root")
    task = entries[0]["task"]
    assert task.startswith("OpaqueRef:")
    assert {entry["call"] for entry in await history(site, f"task={task}")} == {"VM.start"}
    made = await history(site, f"ref={vm}&order=oldest&limit=1")
    assert (made[0]["call"], made[0]["changes"][0]["kind"]) == ("VM.clone", "add")


async def test_filters_are_those_of_the_words(site: Site) -> None:
    network = site.pool.ref("network", "network")
    for name in ("one", "two", "three"):
        await site.client.call("network.set_name_label", network, name)
    generation = (await history(site, f"ref={network}&limit=1"))[0]["generation"]
    for query, count in (
        (f"ref={network}&task=network.set_name_label", 3),
        (f"class=NETWORK&field=name-label&task=network.set_name_label&session={site.client.session}", 3),
        (f"ref={network}&since={generation}", 1),
        (f"ref={network}&since=10m&limit=2", 2),
        (f"ref={network}&since=2000-01-01T00:00:00Z&user=root&limit=0", 3),
        (f"ref={network}&until=20000101T00:00:00Z", 0),
        (f"ref={network}&user=nobody", 0),
    ):
        assert (query, len(await history(site, query))) == (query, count)


@pytest.mark.parametrize("query", ["since=yesterday", "limit=x", "order=random", "class=nonsense", "token=x&limit=1"])
async def test_words_that_mean_nothing_are_refused(site: Site, query: str) -> None:
    assert (await site.ask("GET", f"/db_history?{query}")).status == 400


async def test_neither_secrets_nor_sessions_can_be_read(site: Site) -> None:
    secret = await site.client.call("secret.create", {"value": "s3cr3t-1", "other_config": {}})
    await site.client.call("secret.set_value", secret, "s3cr3t-2")
    [host] = site.pool.store.rows("host")
    await site.client.call("host.add_to_other_config", host, "bmc_password", "s3cr3t-3")
    reply = await site.ask("GET", "/db_history?limit=0")
    assert b"bmc_password" in reply.body
    for text in (b"s3cr3t", site.client.session.encode()):
        assert text not in reply.body
    values = [
        values
        for entry in await history(site, f"ref={secret}")
        for change in entry["changes"]
        for values in change["fields"].values()
    ]
    assert {"old": "(hidden)", "new": "(hidden)"} in values


async def test_it_is_for_pool_administrators_by_a_permission_that_the_original_has(site: Site) -> None:
    session = await log_in(site.pool, "pool-operator")
    assert (await site.ask("GET", "/db_history", session=session.session)).status == 403
    with pytest.raises(Exception, match="RBAC_PERMISSION_DENIED"):
        await session.call("db.get_history", {})
    [row] = [row for row in HANDLERS if row.name == "get_db_history"]
    assert row.permission == "http/get_pool_xml_db_sync"
    assert "http/get_db_history" not in holders()


async def test_a_restored_database_and_who_restored_it_are_told(site: Site) -> None:
    document = (await site.ask("GET", "/pool/xmldbdump")).body
    task = await site.task()
    await site.ask("PUT", f"/pool/xmldbdump?task_id={task}", document)
    assert (await site.ended(task))["status"] == "success"
    entries = await history(site, "user=root")
    restored = next(entry for entry in entries if entry["kind"] == "restored")
    assert (restored["call"], restored["task"]) == ("PUT /pool/xmldbdump", task)


async def test_programs_have_it_as_an_extension(site: Site) -> None:
    network = site.pool.ref("network", "network")
    for name in ("one", "two", "three"):
        await site.client.call("network.set_name_label", network, name)
    first = await extension(site, ref=network, limit="2", order="oldest", task="network.set_name_label")
    names = [entry["changes"][0]["name"] for entry in first["entries"]]
    assert (names, first["more"], first["recording"]) == (["one", "two"], True, True)
    rest = await extension(
        site, ref=network, limit="2", order="oldest", task="network.set_name_label", token=first["token"]
    )
    assert ([entry["changes"][0]["name"] for entry in rest["entries"]], rest["more"]) == (["three"], False)
    [host] = site.pool.store.rows("host")
    assert await site.client.call("host.has_extension", host, "db.get_history") is True
    call = {"jsonrpc": "2.0", "id": 1, "method": "db.get_history", "params": [site.client.session, {"limit": "1"}]}
    answer = await site.client.call("host.call_extension", host, json.dumps(call))
    assert len(answer["entries"]) == 1
    wrong: list[list[Any]] = [[{"nonsense": "1"}], [{"limit": "x"}], ["text"], [{}, {}]]
    for words in wrong:
        assert (await site.client.refusal("db.get_history", *words))[0] == "INVALID_VALUE"


async def test_over_xml_rpc_it_is_a_call_like_any_other(site: Site) -> None:
    body = xmlrpc.client.dumps((site.client.session, {"limit": "3"}), "db.get_history").encode()
    reply = await site.ask("POST", "/RPC2", body, "Content-Type: text/xml\r\n", session="")
    answer: Any = xmlrpc.client.loads(reply.body.decode())[0][0]
    assert answer["Status"] == "Success"
    assert len(answer["Value"]["entries"]) == 3
