"""Commands of the smaller classes: callers, devices, recovery, drivers."""

from __future__ import annotations

from shared.errors import ApiError
from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import ThinClient

NULL = "OpaqueRef:NULL"


async def test_a_caller_is_named_by_agent_or_address(api: FakeXenApi, xe: ThinClient) -> None:
    assert (await xe("caller-create")).stderr == "Error: Either user-agent or client-ip must be specified\n"
    ref = api.add("Caller", user_agent="python*")
    api.on["Caller.create"] = lambda record: ref
    outcome = await xe("caller-create", "user-agent=python*", "name-label=scripts")
    assert outcome.stdout == f"{api.uuid(ref)}\n"
    record = {"user_agent": "python*", "client_ip": "", "name_label": "scripts", "name_description": ""}
    assert api.calls("Caller.create") == [(record,)]


async def test_usage_is_told_for_a_caller_or_a_group(api: FakeXenApi, xe: ThinClient) -> None:
    ref = api.add("Caller", user_agent="python")
    api.on["Caller.query_token_usage"] = lambda self: 2.5
    api.on["Caller.query_call_count"] = lambda self: "3"
    assert (await xe("caller-query-usage", f"uuid={api.uuid(ref)}")).stdout.split() == [
        *("tokens", ":", "2.5"),
        *("call_count:", "3"),
    ]
    api.on["Caller.query_group_token_usage"] = lambda group: 7.0
    api.on["Caller.query_group_call_count"] = lambda group: "7"
    assert "7" in (await xe("caller-query-usage", "group=g")).stdout
    assert (await xe("caller-query-usage")).stderr == "Error: Specify exactly one of uuid= or group=\n"
    api.on["Caller.query_all_usage"] = lambda: [["u", "n", "2.500", "3"]]
    assert (await xe("caller-list-usage", "--minimal")).stdout == "u\n"


async def test_a_limit_is_made_for_its_callers(api: FakeXenApi, xe: ThinClient) -> None:
    limit, one, two = api.add("Rate_limit"), api.add("Caller"), api.add("Caller")
    api.on["Rate_limit.create"] = lambda record: limit
    api.on["Rate_limit.add_caller"] = lambda self, caller: ""
    callers = f"caller-uuids={api.uuid(one)}, {api.uuid(two)}"
    assert (await xe("rate-limit-create", "burst-size=10", "fill-rate=0.5", callers)).status == 0
    assert api.calls("Rate_limit.add_caller") == [(limit, one), (limit, two)]
    record = {"name_label": "", "name_description": "", "burst_size": 10.0, "fill_rate": 0.5}
    assert api.calls("Rate_limit.create") == [(record,)]


async def test_an_observer_records_where_it_can_unless_told_otherwise(api: FakeXenApi, xe: ThinClient) -> None:
    ref = api.add("Observer", name_label="o")
    api.on["Observer.create"] = lambda record: ref
    assert (await xe("observer-create", "name-label=o", "components=xapi,smapi")).stdout == f"{api.uuid(ref)}\n"
    [(record,)] = api.calls("Observer.create")
    assert (record["endpoints"], record["components"], record["enabled"]) == (["bugtool"], ["xapi", "smapi"], False)


async def test_a_virtual_tpm_is_removed_by_force_only(api: FakeXenApi, xe: ThinClient) -> None:
    ref = api.add("VTPM")
    api.on["VTPM.destroy"] = lambda self: ""
    refused = await xe("vtpm-destroy", f"uuid={api.uuid(ref)}")
    assert "use --force" in refused.stderr
    assert api.calls("VTPM.destroy") == []
    assert (await xe("vtpm-destroy", f"uuid={api.uuid(ref)}", "--force")).status == 0


async def test_a_virtual_gpu_without_a_type_is_a_whole_one(api: FakeXenApi, xe: ThinClient) -> None:
    vm, group, vgpu = api.add("VM", name_label="v"), api.add("GPU_group"), api.add("VGPU")
    api.on["VGPU.create"] = lambda *params: vgpu
    outcome = await xe("vgpu-create", f"vm-uuid={api.uuid(vm)}", f"gpu-group-uuid={api.uuid(group)}")
    assert outcome.stdout == f"{api.uuid(vgpu)}\n"
    assert api.calls("VGPU.create") == [(vm, group, "0", {}, NULL)]


async def test_recovery_looks_into_the_database_of_a_disk(api: FakeXenApi, xe: ThinClient) -> None:
    needed = "Error: A parameter of the form 'database:vdi-uuid=<uuid>' must be specified to run this command.\n"
    assert (await xe("vm-recover", "uuid=x")).stderr == needed

    def not_built(vdi: str) -> str:
        raise ApiError("NOT_IMPLEMENTED", "VDI.open_database")

    disk = api.add("VDI", name_label="d")
    api.on["VDI.open_database"] = not_built
    outcome = await xe("appliance-recover", "uuid=x", f"database:vdi-uuid={api.uuid(disk)}")
    assert (outcome.status, "VDI.open_database" in outcome.stderr) == (1, True)


async def test_a_schedule_and_a_group_are_made(api: FakeXenApi, xe: ThinClient) -> None:
    schedule, group = api.add("VMSS"), api.add("VM_group")
    api.on["VMSS.create"] = lambda record: schedule
    api.on["VM_group.create"] = lambda record: group
    assert (await xe("vmss-create", "name-label=s", "type=snapshot", "frequency=daily", "schedule:hour=1")).status == 0
    [(record,)] = api.calls("VMSS.create")
    assert (record["schedule"], record["enabled"], int(record["retained_snapshots"])) == ({"hour": "1"}, True, 7)
    assert (await xe("vm-group-create", "name-label=g", "placement=anti-affinity")).status == 0
    [(record,)] = api.calls("VM_group.create")
    assert record["placement"] == "anti_affinity"
