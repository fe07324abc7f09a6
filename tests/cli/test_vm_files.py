"""VMs and blobs that go to files and come from them; commands that look into objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from services.cli.protocol import HttpGet, HttpPut
from shared.errors import ApiError
from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import Outcome, ThinClient


@pytest.fixture
def ends(api: FakeXenApi) -> Callable[..., None]:
    """How the handler ends the task that it takes over."""

    def ends(**fields: Any) -> None:
        def set_progress(task: str, value: float) -> str:
            api.row(task).update(fields, progress=1.0)
            return ""

        api.on |= {
            "task.create": lambda label, description: api.task(status="pending"),
            "task.set_progress": set_progress,
        }

    return ends


def asked(outcome: Outcome) -> tuple[str, str, dict[str, list[str]]]:
    [transfer] = [one for one in outcome.commands if isinstance(one, HttpGet | HttpPut)]
    parts = urlsplit(transfer.url)
    return transfer.filename, parts.path, parse_qs(parts.query, keep_blank_values=True)


async def test_a_vm_is_exported_with_or_without_its_disks(
    api: FakeXenApi, xe: ThinClient, ends: Callable[..., None]
) -> None:
    ends(status="success")
    vm = api.add("VM", name_label="web07")
    outcome = await xe("vm-export", "vm=web07", "filename=f", "compress=true")
    assert (outcome.stdout, outcome.status) == ("Export succeeded\n", 0)
    filename, path, arguments = asked(outcome)
    assert (filename, path, arguments["ref"], arguments["use_compression"]) == ("f", "/export", [vm], ["gzip"])
    outcome = await xe("vm-export", "vm=web07", "filename=f", "metadata=true", "excluded-device-types=vif")
    _, path, arguments = asked(outcome)
    assert (path, arguments["excluded_device_types"]) == ("/export_metadata", ["vif"])


async def test_only_a_template_is_exported_as_one(api: FakeXenApi, xe: ThinClient) -> None:
    uuid = api.uuid(api.add("VM", is_a_template=False))
    outcome = await xe("template-export", f"template-uuid={uuid}", "filename=f")
    expected = f"Error: This operation can only be performed on a VM template. {uuid} is not a VM template.\n"
    assert (outcome.stderr, outcome.status) == (expected, 1)


async def test_an_import_tells_the_vms_that_the_file_had(
    api: FakeXenApi, xe: ThinClient, ends: Callable[..., None]
) -> None:
    vm, sr = api.add("VM"), api.add("SR")
    ends(status="success", result=f"<value><array><data><value>{vm}</value></data></array></value>")
    outcome = await xe("vm-import", "filename=f", f"sr-uuid={api.uuid(sr)}", "vdi:a=b", "preserve=true")
    assert outcome.stdout == f"{api.uuid(vm)}\n"
    filename, path, arguments = asked(outcome)
    assert (filename, path) == ("f", "/import")
    assert (arguments["sr_id"], arguments["vdi:a"], arguments["restore"]) == ([sr], ["b"], ["true"])


async def test_an_import_needs_an_sr_before_anything_else(api: FakeXenApi, xe: ThinClient) -> None:
    for row in api.rows["pool"].values():
        row["default_SR"] = "OpaqueRef:NULL"
    outcome = await xe("vm-import", "filename=f", "url=http://a")
    assert (outcome.stderr, outcome.status) == ("Error: No SR specified and Pool default SR is null\n", 1)


async def test_an_import_of_disks_cannot_be_tried(api: FakeXenApi, xe: ThinClient) -> None:
    sr = api.uuid(api.add("SR"))
    assert (await xe("vm-import", "filename=f", f"sr-uuid={sr}", "dry-run=true")).status == 1


async def test_a_blob_needs_an_owner(api: FakeXenApi, xe: ThinClient) -> None:
    assert (await xe("blob-create", "name=n")).stderr.startswith("Error: Need one of: vm-uuid, ")
    blob, vm = api.add("blob"), api.add("VM")
    api.on["VM.create_new_blob"] = lambda *values: blob
    outcome = await xe("blob-create", "name=n", f"vm-uuid={api.uuid(vm)}", "public=true")
    assert outcome.stdout == f"{api.uuid(blob)}\n"
    assert api.calls("VM.create_new_blob") == [(vm, "n", "", True)]


# ---- looking in


async def test_data_sources_are_listed_with_their_limits(api: FakeXenApi, xe: ThinClient) -> None:
    vm = api.add("VM", name_label="web07")
    source = {"name_label": "cpu0", "name_description": "d", "enabled": True, "standard": False, "value": 0.5}
    api.on["VM.get_data_sources"] = lambda ref: [{**source, "min": 0.0, "max": float("inf"), "units": "%"}]
    lines = (await xe("vm-data-source-list", f"uuid={api.uuid(vm)}")).stdout.splitlines()
    assert [line.strip() for line in lines if line.strip()] == [
        "name_label          : cpu0",
        "name_description: d",
        "enabled: true",
        "standard: false",
        "min: 0.",
        "max: inf",
        "units: %",
    ]


async def test_the_status_of_a_vm_says_where_it_can_start(api: FakeXenApi, xe: ThinClient) -> None:
    vm = api.add("VM", name_label="web07")

    def refuse(*params: str) -> str:
        raise ApiError("HOST_DISABLED", params[-1])

    api.on |= {
        "VM.assert_can_boot_here": refuse,
        "VM.assert_agile": lambda vm: "",
        "VM.get_possible_hosts": lambda vm: [],
    }
    outcome = await xe("diagnostic-vm-status", f"uuid={api.uuid(vm)}")
    assert "Cannot start here [HOST_DISABLED" in outcome.stdout
    assert outcome.stdout.endswith("VM is agile.\n")


async def test_hypothetical_failures_take_a_priority_for_each_vm(api: FakeXenApi, xe: ThinClient) -> None:
    method = "pool.ha_compute_hypothetical_max_host_failures_to_tolerate"
    api.on[method] = lambda configuration: 1
    vm = api.add("VM")
    command = "pool-ha-compute-hypothetical-max-host-failures-to-tolerate"
    assert (await xe(command, f"vm-uuid={api.uuid(vm)}")).status == 1
    outcome = await xe(command, f"vm-uuid={api.uuid(vm)}", "restart-priority=restart")
    assert outcome.stdout == "1\n"
    assert api.calls(method) == [({vm: "restart"},)]


async def test_a_host_leaves_the_pool_only_when_asked_again(api: FakeXenApi) -> None:
    api.on["pool.eject"] = lambda host: ""
    host = next(iter(api.rows["host"]))
    outcome = await ThinClient(api, answers=["no"])("pool-eject", f"host-uuid={api.uuid(host)}")
    assert (api.calls("pool.eject"), outcome.status) == ([], 0)
    await ThinClient(api)("pool-eject", f"host-uuid={api.uuid(host)}", "--force")
    assert api.calls("pool.eject") == [(host,)]


async def test_a_tunnel_is_told_by_its_interface(api: FakeXenApi, xe: ThinClient) -> None:
    pif, access, network = api.add("PIF"), api.add("PIF"), api.add("network")
    tunnel = api.add("tunnel", access_PIF=access)
    api.on["tunnel.create"] = lambda *params: tunnel
    outcome = await xe("tunnel-create", f"pif-uuid={api.uuid(pif)}", f"network-uuid={api.uuid(network)}")
    assert outcome.stdout == f"{api.uuid(access)}\n"
    assert api.calls("tunnel.create") == [(pif, network, "gre")]
