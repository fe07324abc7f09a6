"""Messages that every class has: look-ups and writes of single rows."""

from __future__ import annotations

import pytest

from shared.contracts.db import Create, Delete
from shared.datamodel import model
from tests.api.core import records
from tests.api.harness import Client, Pool


async def test_every_class_with_rows_can_be_listed(client: Client, pool: Pool) -> None:
    for cls in model.classes.values():
        listing = model.messages.get(f"{cls.name}.get_all_records")
        if listing is None or listing.removed or cls.name in ("message", "role"):
            continue
        found = await client.call(f"{cls.name}.get_all_records")
        assert set(found) == set(pool.store.rows(cls.name)) == set(await client.call(f"{cls.name}.get_all"))
        for ref, record in list(found.items())[:2]:
            assert await client.call(f"{cls.name}.get_record", ref) == record


async def test_getters_agree_with_the_record(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client)
    record = await client.call("VM.get_record", vm)
    for name in record:
        message = model.messages[f"VM.get_{name}"]
        if not message.removed:
            assert await client.call(f"VM.get_{name}", vm) == record[name], name


async def test_what_is_internal_never_leaves(client: Client) -> None:
    task = await client.call("task.create", "t", "")
    assert "session" not in await client.call("task.get_record", task)
    assert (await client.refusal("task.get_session", task))[0] == "MESSAGE_METHOD_UNKNOWN"


async def test_look_ups_by_uuid_and_name(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client, "twin")
    twin = await pool.vm(client, "twin")
    uuid = await client.call("VM.get_uuid", vm)
    assert await client.call("VM.get_by_uuid", uuid) == vm
    assert set(await client.call("VM.get_by_name_label", "twin")) == {vm, twin}
    assert await client.call("VM.get_by_name_label", "nobody") == []
    assert await client.refusal("VM.get_by_uuid", "x") == ["UUID_INVALID", "VM", "x"]
    assert await client.refusal("host.get_by_uuid", uuid) == ["UUID_INVALID", "host", uuid]


async def test_a_reference_of_another_class_is_invalid(client: Client, pool: Pool) -> None:
    host = pool.host_ref(0)
    assert await client.refusal("VM.get_record", host) == ["HANDLE_INVALID", "VM", host]
    assert await client.refusal("VM.get_name_label", "x") == ["HANDLE_INVALID", "VM", "x"]
    assert await client.refusal("VM.set_name_label", host, "x") == ["HANDLE_INVALID", "VM", host]
    assert await client.refusal("VM.add_tags", host, "x") == ["HANDLE_INVALID", "VM", host]


async def test_what_was_written_is_read(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client)
    await client.call("VM.set_name_label", vm, "zwölf <&>")
    assert await client.call("VM.get_name_label", vm) == "zwölf <&>"
    assert await client.call("VM.get_by_name_label", "zwölf <&>") == [vm]
    await client.call("VM.set_VCPUs_params", vm, {"weight": "7"})
    assert (await client.call("VM.get_record", vm))["VCPUs_params"] == {"weight": "7"}


async def test_a_value_that_xml_cannot_hold_is_refused_and_what_is_added_is_cut(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client, "kept")
    assert (await client.refusal("VM.set_name_label", vm, "a\x00b"))[0] == "INTERNAL_ERROR"
    assert (await client.refusal("VM.set_VCPUs_params", vm, {"k": "v\x01"}))[0] == "INTERNAL_ERROR"
    await client.call("VM.add_to_other_config", vm, "k\x02", "v\x01w")
    await client.call("VM.add_tags", vm, "t\ufffeu")
    record = await client.call("VM.get_record", vm)
    assert (record["name_label"], record["other_config"]["k"], record["tags"]) == ("kept", "v", ["t"])


async def test_maps_refuse_a_key_twice_and_forgive_one_that_is_missing(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client)
    await client.call("VM.add_to_other_config", vm, "k", "v")
    duplicate = ["MAP_DUPLICATE_KEY", "VM", "other_config", vm, "k"]
    assert await client.refusal("VM.add_to_other_config", vm, "k", "v") == duplicate
    await client.call("VM.remove_from_other_config", vm, "k")
    await client.call("VM.remove_from_other_config", vm, "k")
    assert "k" not in await client.call("VM.get_other_config", vm)
    pool_ref = next(iter(pool.store.rows("pool")))
    await client.call("pool.add_to_gui_config", pool_ref, "k", "v")
    assert await client.refusal("pool.add_to_gui_config", pool_ref, "k", "w") == [
        "MAP_DUPLICATE_KEY",
        "pool",
        "gui_config",
        pool_ref,
        "k",
    ]


@pytest.mark.parametrize("message", ["VM.add_to_other_config", "VM.add_to_VCPUs_params", "VM.add_to_platform"])
async def test_an_empty_key_is_refused(client: Client, pool: Pool, message: str) -> None:
    vm = await pool.vm(client)
    assert await client.refusal(message, vm, "", "v") == ["INTERNAL_ERROR", "Db_exn.Empty_key_in_map"]


async def test_sets_take_a_member_once_and_put_new_ones_first(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client)
    for tag in ("a", "b", "a"):
        await client.call("VM.add_tags", vm, tag)
    assert await client.call("VM.get_tags", vm) == ["b", "a"]
    await client.call("VM.remove_tags", vm, "a")
    await client.call("VM.remove_tags", vm, "a")
    assert await client.call("VM.get_tags", vm) == ["b"]


async def test_the_reverse_side_of_a_relation_follows(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client)
    vif = await client.call("VIF.create", records.vif(vm, pool.ref("network", "network")))
    network = await client.call("VIF.get_network", vif)
    assert vif in (await client.call("network.get_record", network))["VIFs"]
    assert await client.call("VM.get_VIFs", vm) == [vif]
    await client.call("VIF.destroy", vif)
    assert await client.call("VM.get_VIFs", vm) == []
    assert vif not in (await client.call("network.get_record", network))["VIFs"]


async def test_a_default_constructor_ignores_what_is_not_for_clients_and_misses_what_must_be_there(
    client: Client, pool: Pool
) -> None:
    vm = await client.call("VM.create", {**await client.call("VM.get_record", await pool.vm(client)), "frob": "x"})
    record = await client.call("VM.get_record", vm)
    assert record["power_state"] == "Halted"
    assert record["domid"] in (-1, "-1")
    code, text = await client.refusal("VIF.create", {"VM": vm})
    assert code == "INTERNAL_ERROR"
    assert "device" in text or "network" in text


async def test_a_dangling_reference_is_legal(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client)
    await client.call("VM.set_affinity", vm, "OpaqueRef:nobody")
    assert await client.call("VM.get_affinity", vm) == "OpaqueRef:nobody"


async def test_records_that_were_encoded_before_a_change_are_not_served_after_it(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client)
    network = pool.ref("network", "network")
    for number in range(3):
        assert len((await client.call("VM.get_record", vm))["VIFs"]) == number
        assert len((await client.call("network.get_all_records"))[network]["VIFs"]) == number
        await client.call("VIF.create", records.vif(vm, network, device=str(number)))


async def test_message_has_no_table_of_its_own_rules_but_answers_alike(client: Client, pool: Pool) -> None:
    uuid = pool.row("pool", next(iter(pool.store.rows("pool"))))["uuid"]
    ref = await client.call("message.create", "HELLO", 3, "Pool", uuid, "body")
    record = await client.call("message.get_record", ref)
    assert (record["name"], record["body"], record["obj_uuid"]) == ("HELLO", "body", uuid)
    assert list(await client.call("message.get_all_records")) == [ref]
    assert list(await client.call("message.get_all_records_where", 'field "name"="HELLO"')) == [ref]
    assert list(await client.call("message.get", "Pool", uuid, "19700101T00:00:00Z")) == [ref]
    assert await client.refusal("message.create", "X", 3, "VM", "nope", "") == ["UUID_INVALID", "VM", "nope"]
    assert await client.refusal("message.get", "VM", "nope", "19700101T00:00:00Z") == ["UUID_INVALID"]
    await client.call("message.destroy_all", {"priority": "2"})
    assert await client.call("message.get_all") == [ref]
    await client.call("message.destroy", ref)
    assert await client.call("message.get_all") == []
    assert await client.refusal("message.destroy", ref) == ["HANDLE_INVALID", "message", ref]


async def test_a_write_to_a_row_that_vanishes_is_refused(client: Client, pool: Pool) -> None:
    await pool.write(Create(cls="network", ref="OpaqueRef:n", fields={"name_label": "n", "bridge": "b"}))
    await pool.write(Delete(cls="network", ref="OpaqueRef:n"))
    assert await client.refusal("network.set_name_label", "OpaqueRef:n", "x") == [
        "HANDLE_INVALID",
        "network",
        "OpaqueRef:n",
    ]
