"""`param-get`, `-set`, `-add`, `-remove`, `-clear`."""

from __future__ import annotations

import pytest

from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import Outcome, ThinClient

NULL = "OpaqueRef:NULL"


@pytest.fixture
def vm(api: FakeXenApi) -> str:
    return api.add("VM", name_label="web01", platform={"acpi": "1"}, other_config={}, tags=["t1"])


class Vm:
    """`xe vm-param-*` on one VM."""

    def __init__(self, api: FakeXenApi, xe: ThinClient, ref: str) -> None:
        self.api, self.xe, self.ref = api, xe, ref

    async def __call__(self, what: str, *words: str) -> Outcome:
        return await self.xe(f"vm-param-{what}", f"uuid={self.api.uuid(self.ref)}", *words)


@pytest.fixture
def param(api: FakeXenApi, xe: ThinClient, vm: str) -> Vm:
    return Vm(api, xe, vm)


async def test_get_prints_the_shown_value(param: Vm) -> None:
    assert (await param("get", "param-name=platform")).stdout == "acpi: 1\n"
    assert (await param("get", "param-name=platform", "param-key=acpi")).stdout == "1\n"
    assert (await param("get", "param-name=tags", "param-key=ignored")).stdout == "t1\n"
    assert (await param("get", "param-name=NVRAM")).status == 0, "hidden fields can be read"


async def test_a_missing_key_or_field_is_an_error(param: Vm) -> None:
    outcome = await param("get", "param-name=platform", "param-key=none")
    assert (outcome.stderr, outcome.status) == ("Error: Key none not found in map\n", 1)
    outcome = await param("get", "param-name=frob")
    assert outcome.stderr == "Error code: Missing parameter\nError parameters: frob\n"


async def test_set_parses_by_type_and_calls_once_for_each_field(api: FakeXenApi, param: Vm, vm: str) -> None:
    words = ["memory-static-max=4GiB", "is-a-template=true", "actions-after-crash=Restart", "HVM-shadow-multiplier=1.5"]
    outcome = await param("set", *words, "name-label=a=b", "--minimal")
    assert outcome.status == 0, outcome.stderr
    assert api.called == [
        ("VM.set_memory_static_max", vm, 4 << 30),
        ("VM.set_is_a_template", vm, True),
        ("VM.set_actions_after_crash", vm, "restart"),
        ("VM.set_HVM_shadow_multiplier", vm, 1.5),
        ("VM.set_name_label", vm, "a=b"),
    ]


async def test_a_key_of_a_map_is_replaced(api: FakeXenApi, param: Vm, vm: str) -> None:
    assert (await param("set", "platform:acpi=0", "other-config-new=x")).status == 0
    assert api.called == [
        ("VM.remove_from_platform", vm, "acpi"),
        ("VM.add_to_platform", vm, "acpi", "0"),
        ("VM.add_to_other_config", vm, "new", "x"),
    ]


async def test_the_same_new_key_twice_is_a_duplicate(api: FakeXenApi, param: Vm, vm: str) -> None:
    outcome = await param("set", "platform:k=1", "platform:k=2")
    lines = outcome.stderr.splitlines()
    assert lines[1:] == ["type: VM", "param_name: platform", f"uuid: {api.uuid(vm)} (web01)", "key: k"]


async def test_maps_without_single_keys_are_set_whole_and_once(api: FakeXenApi, param: Vm, vm: str) -> None:
    api.on["VM.set_bios_strings"] = lambda ref, value: ""
    assert (await param("set", "bios-strings:bios-vendor=a", "bios-strings:system-serial-number=b")).status == 0
    assert api.called == [("VM.set_bios_strings", vm, {"bios-vendor": "a", "system-serial-number": "b"})]


@pytest.mark.parametrize("name", ["affinity", "appliance"])
async def test_an_empty_reference_is_cleared(api: FakeXenApi, param: Vm, vm: str, name: str) -> None:
    api.on[f"VM.set_{name}"] = lambda ref, value: ""
    assert (await param("set", f"{name}=")).status == 0
    assert api.called == [(f"VM.set_{name}", vm, NULL)]


async def test_a_reference_is_given_by_uuid(api: FakeXenApi, xe: ThinClient) -> None:
    (pool,) = api.rows["pool"]
    sr = api.add("SR", name_label="local")
    assert (await xe("pool-param-set", f"uuid={api.uuid(pool)}", f"default-SR={api.uuid(sr)}")).status == 0
    assert api.row(pool)["default_SR"] == sr
    outcome = await xe("pool-param-set", f"uuid={api.uuid(pool)}", "default-SR=frob")
    assert outcome.stderr.splitlines()[1:] == ["type: SR", "uuid: frob"]


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("frob=1", "Unknown field 'frob'"),
        ("frob:a=1", "Unknown field 'frob:a'"),
        ("power-state=running", "Field 'power-state' is read-only."),
        ("other-config=x", "Field 'other-config' is a map or set. use the 'name:key=value' syntax."),
        ("tags:contains=x", "Cannot param-set on set fields"),
        ("VCPUs-max=two", "Failed to parse parameter 'VCPUs-max'"),
        ("is-a-template=yes", "Failed to parse parameter 'is-a-template'"),
        ("memory-static-max=1.5GiB", "Failed to parse field 'memory-static-max'"),
        ("domain-type=frob", "Expected one of 'hvm', 'pv', 'pv-in-pvh', 'pvh', got frob"),
    ],
)
async def test_what_cannot_be_set_is_an_error(api: FakeXenApi, param: Vm, word: str, text: str) -> None:
    outcome = await param("set", word)
    assert outcome.stderr.startswith(f"Error: {text}")
    assert outcome.status == 1
    assert api.called == []


async def test_assignments_before_a_bad_one_stay_done(api: FakeXenApi, param: Vm, vm: str) -> None:
    assert (await param("set", "name-label=new", "frob=1")).status == 1
    assert api.row(vm)["name_label"] == "new"


async def test_a_set_with_a_setter_takes_a_list(api: FakeXenApi, xe: ThinClient) -> None:
    vif = api.add("VIF", device="0")
    api.on["VIF.set_ipv4_allowed"] = lambda ref, value: ""
    assert (await xe("vif-param-set", f"uuid={api.uuid(vif)}", "ipv4-allowed=10.0.0.1,10.0.0.2")).status == 0
    assert api.called == [("VIF.set_ipv4_allowed", vif, ["10.0.0.1", "10.0.0.2"])]


async def test_members_and_keys_are_added_and_removed(api: FakeXenApi, param: Vm, vm: str) -> None:
    assert (await param("add", "param-name=tags", "param-key=t2")).status == 0
    assert (await param("add", "param-name=platform", "k=v", "k2=v2")).status == 0
    assert sorted(api.row(vm)["tags"]) == ["t1", "t2"]
    assert api.row(vm)["platform"] == {"acpi": "1", "k": "v", "k2": "v2"}
    assert (await param("remove", "param-name=tags", "param-key=t1")).status == 0
    assert (await param("remove", "param-name=platform", "param-key=k")).status == 0
    assert api.row(vm)["tags"] == ["t2"]
    assert api.row(vm)["platform"] == {"acpi": "1", "k2": "v2"}


async def test_without_messages_for_members_the_whole_set_is_written(api: FakeXenApi, xe: ThinClient) -> None:
    observer = api.add("Observer", name_label="o", endpoints=["a"])
    api.on["Observer.set_endpoints"] = lambda ref, value: ""
    assert (
        await xe("observer-param-add", f"uuid={api.uuid(observer)}", "param-name=endpoints", "param-key=b")
    ).status == 0
    assert api.called == [("Observer.set_endpoints", observer, ["a", "b"])]


async def test_fields_are_cleared_each_in_its_way(api: FakeXenApi, param: Vm, vm: str) -> None:
    api.row(vm)["xenstore_data"] = {"vm-data": "x"}
    for name in ("tags", "platform", "xenstore-data", "name-label"):
        assert (await param("clear", f"param-name={name}")).status == 0
    row = api.row(vm)
    assert (row["tags"], row["platform"], row["xenstore_data"], row["name_label"]) == ([], {}, {}, "")
    outcome = await param("clear", "param-name=power-state")
    assert outcome.stderr.startswith("Error: ")


async def test_an_unknown_object_is_an_api_error(xe: ThinClient) -> None:
    outcome = await xe("vm-param-add", "uuid=nobody", "param-name=tags", "param-key=x")
    assert outcome.stderr.splitlines()[1:] == ["type: VM", "uuid: nobody"]
    assert outcome.status == 1
