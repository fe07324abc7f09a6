"""`<class>-list` and its filters, and how records are laid out."""

from __future__ import annotations

import pytest

from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import ThinClient


@pytest.fixture
def vm(api: FakeXenApi) -> str:
    return api.add(
        "VM",
        name_label="web01",
        power_state="Halted",
        VCPUs_max=2,
        memory_static_max=268435456,
        platform={"acpi": "1"},
        HVM_boot_params={"order": "cd"},
        tags=["prod", "eu"],
        HVM_shadow_multiplier=1.0,
    )


async def test_a_record_is_laid_out_as_in_the_original(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    outcome = await xe("vm-list", f"uuid={api.uuid(vm)}")
    assert outcome.stdout == (
        f"uuid ( RO)           : {api.uuid(vm)}\n     name-label ( RW): web01\n    power-state ( RO): halted\n\n\n"
    )
    assert (outcome.stderr, outcome.status) == ("", 0)


async def test_fields_come_in_the_order_of_the_record_whatever_was_asked(xe: ThinClient, vm: str) -> None:
    outcome = await xe(
        "vm-list", "name-label=web01", "params=VCPUs-max,memory-static-max,tags,platform,HVM-boot-params"
    )
    assert outcome.stdout == (
        "memory-static-max ( RW)    : 268435456\n"
        "            VCPUs-max ( RW): 2\n"
        "             platform (MRW): acpi: 1\n"
        "      HVM-boot-params (MRW): order: cd\n"
        "                 tags (SRW): prod, eu\n\n\n"
    )


async def test_minimal_prints_the_first_field_of_each_record_in_one_line(api: FakeXenApi, xe: ThinClient) -> None:
    api.add("VM", name_label="a,b")
    api.add("VM", name_label="c\\d")
    outcome = await xe("vm-list", "is-control-domain=false", "params=name-label", "--minimal")
    assert outcome.stdout == "a\\,b,c\\\\d\n"


async def test_templates_are_no_vms_unless_all_are_asked_for(api: FakeXenApi, xe: ThinClient) -> None:
    template = api.add("VM", name_label="tiny", is_a_template=True)
    assert (await xe("vm-list", "name-label=tiny", "--minimal")).stdout == "\n"
    assert (await xe("vm-list", "is-a-template=true", "--minimal")).stdout == "\n"
    assert api.uuid(template) in (await xe("vm-list", "--all", "--minimal")).stdout
    assert (await xe("template-list", "--minimal")).stdout == f"{api.uuid(template)}\n"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["platform:acpi=1"], True),
        (["platform:acpi=0"], False),
        (["platform-acpi=1"], True),
        (["HVM-boot-params-order=cd"], True),
        (["tags:contains=eu"], True),
        (["tags-contains=us"], False),
        (["tags=prod, eu"], True),
        (["power-state=halted", "VCPUs-max=2"], True),
        (["power-state=halted", "VCPUs-max=3"], False),
        (["HVM-shadow-multiplier=1.000"], True),
        (["name-label=WEB01"], False),
    ],
)
async def test_filters_compare_what_is_shown(xe: ThinClient, vm: str, words: list[str], found: bool) -> None:
    assert (await xe("vm-list", "is-control-domain=false", *words, "params=name-label", "--minimal")).stdout == (
        "web01\n" if found else "\n"
    )


async def test_a_mac_is_compared_in_any_case(api: FakeXenApi, xe: ThinClient) -> None:
    api.add("VIF", MAC="aa:BB:cc:00:00:01", device="0")
    assert (await xe("vif-list", "MAC=AA:bb:CC:00:00:01", "params=device", "--minimal")).stdout == "0\n"


async def test_a_set_cannot_be_filtered_by_another_word_than_contains(xe: ThinClient, vm: str) -> None:
    outcome = await xe("vm-list", "tags:first=prod")
    assert outcome.status == 1
    assert outcome.stderr.startswith("Error: ")


async def test_an_unknown_field_is_an_error_only_while_there_is_something_to_test(xe: ThinClient, vm: str) -> None:
    assert (await xe("vm-list", "frob=1")).stderr == "Error: Unknown field 'frob'\n"
    assert (await xe("vm-list", "name-label=none", "frob=1")).status == 0
    assert (await xe("sr-list", "frob=1")).status == 0


async def test_references_are_uuids_and_names_and_dangling_ones_are_told(api: FakeXenApi, xe: ThinClient) -> None:
    network = api.add("network", name_label="lan")
    vm = api.add("VM", name_label="web01")
    api.add("VIF", VM=vm, network=network, device="0")
    api.add("VIF", VM="OpaqueRef:gone", network="OpaqueRef:NULL", device="1")
    outcome = await xe("vif-list", "params=device,vm-uuid,vm-name-label,network-uuid,network-name-label")
    assert outcome.stdout == (
        f"vm-uuid ( RO)               : {api.uuid(vm)}\n"
        "         vm-name-label ( RO): web01\n"
        "                device ( RO): 0\n"
        f"          network-uuid ( RO): {api.uuid(network)}\n"
        "    network-name-label ( RO): lan\n\n\n"
        "vm-uuid ( RO)               : <not in database>\n"
        "         vm-name-label ( RO): <not in database>\n"
        "                device ( RO): 1\n"
        "          network-uuid ( RO): <not in database>\n"
        "    network-name-label ( RO): <not in database>\n\n\n"
    )


async def test_an_sr_tells_its_host_or_that_it_is_shared(api: FakeXenApi, xe: ThinClient) -> None:
    (host,) = api.rows["host"]
    plug = api.add("PBD", host=host)
    api.add("SR", name_label="one", PBDs=[plug])
    api.add("SR", name_label="two", PBDs=[plug, api.add("PBD", host=host)])
    api.add("SR", name_label="none")
    outcome = await xe("sr-list", "params=name-label,host")
    hosts = [line.partition(": ")[2] for line in outcome.stdout.splitlines() if "host ( RO)" in line]
    assert hosts == ["host one", "<shared>", "<not in database>"]


async def test_expensive_fields_are_placeholders_in_lists_and_computed_in_param_list(
    api: FakeXenApi, xe: ThinClient, vm: str
) -> None:
    api.on["VM.get_allowed_VBD_devices"] = lambda ref: ["0", "1"]
    listed = await xe("vm-list", "name-label=web01", "params=allowed-VBD-devices")
    assert listed.stdout == "allowed-VBD-devices (SRO)    : <expensive field>\n\n\n"
    shown = await xe("vm-param-get", f"uuid={api.uuid(vm)}", "param-name=allowed-VBD-devices")
    assert shown.stdout == "0; 1\n"
    filtered = await xe("vm-list", "allowed-VBD-devices:contains=1", "params=name-label", "--minimal")
    assert filtered.stdout.endswith("web01\n")


async def test_a_long_list_reads_each_class_once(api: FakeXenApi, xe: ThinClient) -> None:
    srs = [api.add("SR", name_label=f"sr {number}") for number in range(30)]
    for sr in srs:
        api.add("VDI", SR=sr, name_label="disk")
    outcome = await xe("vdi-list", "params=sr-uuid,sr-name-label", "--minimal")
    assert len(outcome.stdout.split(",")) == 30
    assert api.reads == ["VDI.get_all_records", "SR.get_all_records"]


async def test_a_uuid_is_looked_up_without_reading_the_class(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    await xe("vm-list", f"uuid={api.uuid(vm)}")
    assert api.reads == []


async def test_another_database_is_read_in_its_own_session(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    disk = api.add("VDI", type="metadata")

    def open_database(ref: str) -> str:
        assert ref == disk
        api.sessions.add("OpaqueRef:other")
        return "OpaqueRef:other"

    api.on["VDI.open_database"] = open_database
    outcome = await xe("vm-list", f"database:vdi-uuid={api.uuid(disk)}", "name-label=web01", "params=name-label")
    assert "web01" in outcome.stdout
    assert api.sessions == set()


async def test_params_all_shows_every_field_but_the_hidden_ones(xe: ThinClient, vm: str) -> None:
    outcome = await xe("vm-list", "name-label=web01", "params=all")
    assert outcome.status == 0, outcome.stderr
    assert "start-time ( RO): <unknown time>" in outcome.stdout
    assert "PV-drivers-up-to-date ( RO) [DEPRECATED]: <not in database>" in outcome.stdout
    assert "NVRAM" not in outcome.stdout
    assert len(outcome.stdout.splitlines()[0].partition(": ")[0]) == 4 + len("PV-drivers-up-to-date ( RO) [DEPRECATED]")
