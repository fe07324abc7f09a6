"""Commands written by hand: what they call and what they say."""

from __future__ import annotations

import pytest

from services.cli.protocol import HttpConnect
from shared.errors import ApiError
from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import ThinClient

NULL = "OpaqueRef:NULL"
ABOUT = "The following items are about to be destroyed"


@pytest.fixture
def vm(api: FakeXenApi) -> str:
    api.on["message.get"] = lambda cls, uuid, since: {}
    return api.add("VM", name_label="web01", power_state="Halted", other_config={})


# ---- power


async def test_starting_waits_for_its_task_and_destroys_it(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    task = api.task()
    api.on["Async.VM.start"] = lambda *params: task
    outcome = await xe("vm-start", "vm=web01")
    assert (outcome.stdout, outcome.stderr, outcome.status) == ("", "", 0)
    assert api.calls("Async.VM.start") == [(vm, False, False)]
    assert api.rows["task"] == {}


async def test_starting_on_a_host_names_it_by_uuid_or_name(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    (host,) = api.rows["host"]
    api.on["Async.VM.start_on"] = lambda *params: api.task()
    assert (await xe("vm-start", "vm=web01", "on=host one", "paused=true", "--force")).status == 0
    assert api.calls("Async.VM.start_on") == [(vm, host, True, True)]
    assert (await xe("vm-start", "vm=web01", "on=nowhere")).stderr == "Error: Host nowhere not found\n"


async def test_the_error_of_a_task_is_the_error_of_the_command(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    api.on["Async.VM.start"] = lambda *params: api.task("failure", ("VM_BAD_POWER_STATE", vm, "halted", "running"))
    outcome = await xe("vm-start", "vm=web01")
    assert outcome.stderr.splitlines()[1:] == [f"vm: {api.uuid(vm)} (web01)", "expected: halted", "actual: running"]
    assert outcome.status == 1
    assert api.rows["task"] == {}
    assert api.sessions == set()


async def test_a_cancelled_task_is_told(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    api.on["Async.VM.start"] = lambda *params: api.task("cancelled")
    outcome = await xe("vm-start", "vm=web01")
    assert (outcome.status, "task: " in outcome.stderr) == (1, True)


async def test_progress_is_drawn_on_standard_error(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    api.on["Async.VM.clean_shutdown"] = lambda *params: api.task()
    outcome = await xe("vm-shutdown", "vm=web01", "--progress")
    assert outcome.stderr == f"\r 100% | {'#' * 70}\n\n\n"
    assert (await xe("vm-reboot", "vm=web01", "--progress")).stderr == "Error: Unknown field 'progress'\n"


async def test_no_host_available_is_explained(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    api.on["Async.VM.start"] = lambda *params: api.task("failure", ("NO_HOSTS_AVAILABLE",))

    def refuse(*_: str) -> str:
        raise ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", "1", "0")

    api.on["VM.assert_can_boot_here"] = refuse
    outcome = await xe("vm-start", "vm=web01")
    assert "host one    : Cannot start here [HOST_NOT_ENOUGH_FREE_MEMORY 1 0]" in outcome.stdout
    assert outcome.status == 1


async def test_force_pulls_the_plug(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    api.on["Async.VM.hard_shutdown"] = lambda *params: api.task()
    api.on["VM.hard_reboot"] = lambda ref: ""
    assert (await xe("vm-shutdown", "vm=web01", "--force")).status == 0
    assert (await xe("vm-reboot", "vm=web01", "--force")).status == 0
    assert (await xe("vm-reboot", "vm=web01", "force=maybe")).stderr.startswith(
        "Error: Failed to parse parameter 'force'"
    )


async def test_important_messages_about_the_vm_are_told_afterwards(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    record = {"timestamp": "20250102T03:04:05Z", "priority": 3, "name": "VM_CRASHED"}
    api.on["VM.pause"] = lambda ref: ""
    api.on["message.get"] = lambda cls, uuid, since: {"a": record, "b": {**record, "priority": 5, "name": "VM_PAUSED"}}
    outcome = await xe("vm-pause", "vm=web01")
    assert outcome.stderr == "Message: time=20250102T03:04:05Z priority=3 name='VM_CRASHED'\n\n"


# ---- selectors


async def test_several_matches_need_multiple(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    other = api.add("VM", name_label="web01")
    api.on["VM.pause"] = lambda ref: ""
    assert "--multiple" in (await xe("vm-pause", "vm=web01")).stderr
    assert api.called == []
    assert (await xe("vm-pause", "vm=web01", "--multiple")).status == 0
    assert api.calls("VM.pause") == [(vm,), (other,)]


async def test_failures_of_some_are_told_on_standard_output(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    other = api.add("VM", name_label="web02")
    fine = api.add("VM", name_label="web03")

    def pause(ref: str) -> str:
        if ref != fine:
            raise ApiError("VM_BAD_POWER_STATE", ref, "running", "halted")
        return ""

    api.on["VM.pause"] = pause
    outcome = await xe("vm-pause", "--multiple")
    assert (outcome.stderr, outcome.status) == ("", 1)
    heads = [line.split(":")[0] for line in outcome.stdout.splitlines() if line.startswith("operation failed on ")]
    assert heads == [f"operation failed on {api.uuid(other)}", f"operation failed on {api.uuid(vm)}"]
    assert f"vm: {api.uuid(other)} (web02)\nexpected: running\nactual: halted\n" in outcome.stdout


async def test_control_domains_and_templates_are_out_of_reach_of_most_commands(api: FakeXenApi, xe: ThinClient) -> None:
    api.add("VM", name_label="tiny", is_a_template=True)
    for words in (["vm-shutdown"], ["vm-pause", "vm=tiny"], ["vm-start", "vm=tiny"]):
        assert (await xe(*words)).stderr == "Error: No matching VMs found\n"


async def test_hosts_are_selected_by_name_host_name_or_uuid(api: FakeXenApi, xe: ThinClient) -> None:
    (host,) = api.rows["host"]
    api.on["host.disable"] = lambda *params: ""
    for wanted in ("host one", "host1", api.uuid(host)):
        assert (await xe("host-disable", f"host={wanted}")).status == 0
    assert api.calls("host.disable") == [(host, True)] * 3
    assert (await xe("host-disable", "host=x")).stderr == "Error: No matching hosts found\n"


# ---- making and unmaking


async def test_installing_clones_the_template_and_provisions(api: FakeXenApi, xe: ThinClient) -> None:
    sr = api.add("SR", name_label="local")
    next(iter(api.rows["pool"].values()))["default_SR"] = sr
    disks = '<provision><disk device="0" size="1024" sr="" bootable="true" type="system"/></provision>'
    template = api.add("VM", name_label="tiny", is_a_template=True, other_config={"disks": disks})
    api.on["VM.clone"] = lambda ref, name: api.add("VM", name_label=name, other_config={"disks": disks})
    api.on["VM.provision"] = lambda ref: ""
    outcome = await xe("vm-install", "template=tiny", "new-name-label=web")
    (made,) = (ref for ref, row in api.rows["VM"].items() if row["name_label"] == "web")
    assert (outcome.stdout, outcome.stderr) == (f"{api.uuid(made)}\n", "")
    assert api.calls("VM.clone") == [(template, "web")]
    assert api.calls("VM.provision") == [(made,)]
    assert f'sr="{api.uuid(sr)}"' in api.row(made)["other_config"]["disks"]
    assert api.row(made)["name_description"] == "Installed via xe CLI"


async def test_a_failed_installation_leaves_no_vm(api: FakeXenApi, xe: ThinClient) -> None:
    api.add("VM", name_label="tiny", is_a_template=True)
    api.on["VM.clone"] = lambda ref, name: api.add("VM", name_label=name)

    def full(ref: str) -> str:
        raise ApiError("SR_FULL", "1", "0")

    api.on["VM.provision"] = full
    outcome = await xe("vm-install", "template=tiny", "new-name-label=web")
    assert (outcome.stdout, outcome.status) == ("", 1)
    assert "web" not in [row["name_label"] for row in api.rows["VM"].values()]


async def test_a_template_that_wants_disks_needs_an_sr(api: FakeXenApi, xe: ThinClient) -> None:
    api.add("VM", name_label="tiny", is_a_template=True)
    api.on["VM.clone"] = lambda ref, name: api.add("VM", name_label=name, other_config={"disks": "<provision/>"})
    outcome = await xe("vm-install", "template-name-label=tiny", "new-name-label=web")
    assert outcome.stderr == "Error: No SR specified and Pool default SR is null\n"


async def test_only_the_first_of_several_clones_gets_the_description(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    api.add("VM", name_label="web02")
    api.on["VM.clone"] = lambda ref, name: api.add("VM", name_label=name, name_description="old")
    outcome = await xe("vm-clone", "is-a-template=false", "new-name-label=c", "new-name-description=new", "--multiple")
    copies = [row for row in api.rows["VM"].values() if row["name_label"] == "c"]
    assert sorted(row["name_description"] for row in copies) == ["new", "old"]
    assert sorted(outcome.stdout.split()) == sorted(row["uuid"] for row in copies)


def with_disks(api: FakeXenApi, vm: str) -> tuple[str, str]:
    """An own disk and a foreign one."""
    own, foreign = api.add("VDI", name_label="system"), api.add("VDI", name_label="data")
    drives = [
        api.add("VBD", VM=vm, VDI=own, type="Disk", userdevice="0", other_config={"owner": ""}),
        api.add("VBD", VM=vm, VDI=foreign, type="Disk", userdevice="1"),
    ]
    api.row(vm)["VBDs"] = drives
    return own, foreign


async def test_uninstalling_destroys_own_disks_only_and_asks_first(api: FakeXenApi, vm: str) -> None:
    own, foreign = with_disks(api, vm)
    xe = ThinClient(api, answers=["no", " YES "])
    outcome = await xe("vm-uninstall", "vm=web01")
    heading = f"{ABOUT}\nVM : {api.uuid(vm)} (web01)\nVDI: {api.uuid(own)} (system) \nType 'yes' to continue\n"
    assert (outcome.stdout, outcome.status) == (heading + "Aborted (you typed: 'no')\n", 0)
    outcome = await xe("vm-uninstall", "vm=web01")
    assert outcome.stdout == heading + "All objects destroyed\n"
    assert vm not in api.rows["VM"]
    assert list(api.rows["VDI"]) == [foreign]


async def test_uninstalling_by_force_asks_nothing_and_stops_the_vm(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    api.row(vm)["power_state"] = "Running"
    api.on["VM.hard_shutdown"] = lambda ref: ""
    assert (await xe("vm-uninstall", "vm=web01", "--force")).status == 0
    assert api.calls("VM.hard_shutdown") == [(vm,)]


async def test_a_control_domain_is_not_destroyed(api: FakeXenApi, xe: ThinClient) -> None:
    (dom0,) = api.rows["VM"]
    assert (await xe("vm-destroy", f"uuid={api.uuid(dom0)}")).status == 1
    assert api.called == []


# ---- disks


async def test_disks_are_listed_drive_and_disk_in_turn(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    with_disks(api, vm)
    outcome = await xe("vm-disk-list", "vm=web01", "vbd-params=userdevice", "vdi-params=name-label,virtual-size")
    assert outcome.stdout.startswith(
        "Disk 0 VBD:\nuserdevice ( RW)    : 0\n\n\n"
        "Disk 0 VDI:\nname-label ( RW)      : system\n    virtual-size ( RO): 0\n\n\nDisk 1 VBD:\n"
    )
    minimal = await xe("vm-disk-list", "vm=web01", "vbd-params=userdevice", "vdi-params=name-label", "--minimal")
    assert minimal.stdout == "data,1,system,0\n"


async def test_a_disk_is_made_and_plugged_in(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    sr = api.add("SR")
    api.on["VDI.create"] = lambda record: api.add("VDI", **record)
    api.on["VBD.create"] = lambda record: api.add("VBD", **record)

    def halted(ref: str) -> str:
        raise ApiError("VM_BAD_POWER_STATE", vm, "running", "halted")

    api.on["VBD.plug"] = halted
    outcome = await xe("vm-disk-add", "vm=web01", f"sr-uuid={api.uuid(sr)}", "disk-size=8 MiB", "device=0")
    assert (outcome.stdout, outcome.stderr, outcome.status) == ("", "", 0)
    (disk,), (drive,) = api.rows["VDI"].values(), api.rows["VBD"].values()
    assert (disk["virtual_size"], disk["sm_config"]) == (8 << 20, {"vmhint": api.uuid(vm)})
    assert (drive["userdevice"], drive["other_config"]) == ("0", {"owner": ""})
    missing = await xe("vm-disk-add", "vm=web01", "disk-size=8MiB", "device=1")
    assert missing.stderr == "Error: No default Pool SR set; you must specify an SR on the commandline\n"


async def test_a_disk_without_its_drive_is_not_left_behind(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    sr = api.add("SR")
    api.on["VDI.create"] = lambda record: api.add("VDI", **record)

    def taken(record: object) -> str:
        raise ApiError("DEVICE_ALREADY_EXISTS", "0")

    api.on["VBD.create"] = taken
    outcome = await xe("vm-disk-add", "vm=web01", f"sr-uuid={api.uuid(sr)}", "disk-size=8MiB", "device=0")
    assert outcome.stderr.splitlines()[1:] == ["device: 0"]
    assert api.rows["VDI"] == {}


async def test_an_empty_drive_has_to_be_for_a_cd(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    api.on["VBD.create"] = lambda record: api.add("VBD", **record)
    assert (await xe("vbd-create", f"vm-uuid={api.uuid(vm)}", "device=3")).status == 1
    outcome = await xe("vbd-create", f"vm-uuid={api.uuid(vm)}", "device=3", "type=cd", "mode=ro")
    (drive,) = api.rows["VBD"].values()
    assert outcome.stdout == f"{drive['uuid']}\n"
    assert (drive["type"], drive["mode"], drive["empty"], drive["VDI"]) == ("CD", "RO", True, NULL)


# ---- storage, networks


async def test_an_sr_that_is_one_hosts_own_needs_to_know_which(api: FakeXenApi, xe: ThinClient) -> None:
    (host,) = api.rows["host"]
    api.on["SR.create"] = lambda *params: api.add("SR", name_label=params[3])
    words = ("sr-create", "name-label=x", "type=file", "device-config:path=/srv", "device-config-x=y")
    outcome = await xe(*words)
    (sr,) = api.rows["SR"].values()
    assert outcome.stdout == f"{sr['uuid']}\n"
    assert api.calls("SR.create") == [(host, {"path": "/srv", "x": "y"}, 0, "x", "", "file", "", False, {})]
    api.add("host", name_label="two")
    assert (await xe(*words)).stderr == "Error: Required parameter not found: host-uuid\n"
    assert (await xe(*words, "shared=true")).status == 0


async def test_a_device_config_may_be_a_file_of_the_clients(api: FakeXenApi) -> None:
    api.on["SR.create"] = lambda *params: api.add("SR")
    xe = ThinClient(api, files={"/tmp/key": b"secret\n"})
    words = ("sr-create", "name-label=x", "type=nfs", "device-config:key-filename=/tmp/key")
    assert (await xe(*words)).status == 0
    assert api.calls("SR.create")[0][1] == {"key": "secret\n"}
    outcome = await xe("sr-create", "name-label=x", "type=nfs", "device-config:key-filename=/gone")
    assert outcome.stderr == "Error: Failed to read /gone\n"


async def test_a_network_is_made_from_defaults(api: FakeXenApi, xe: ThinClient) -> None:
    api.on["network.create"] = lambda record: api.add("network", **record)
    outcome = await xe("network-create", "name-label=lan", "MTU=9000")
    (network,) = api.rows["network"].values()
    assert outcome.stdout == f"{network['uuid']}\n"
    assert (network["MTU"], network["managed"], network["bridge"]) == (9000, True, "")


# ---- the rest


async def test_waiting_for_an_event_ends_when_an_object_is_as_wanted(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    snapshot = api.row(vm)
    answers = iter(
        [
            {"events": [{"operation": "add", "ref": vm, "snapshot": dict(snapshot)}], "token": "1"},
            {
                "events": [{"operation": "mod", "ref": vm, "snapshot": {**snapshot, "power_state": "Running"}}],
                "token": "2",
            },
        ]
    )
    api.on["event.from"] = lambda classes, token, timeout: next(answers)
    outcome = await xe("event-wait", "class=vm", f"uuid={api.uuid(vm)}", "power-state=/=halted")
    assert (outcome.stdout, outcome.status) == ("", 0)
    assert [call[:2] for call in api.calls("event.from")] == [(["vm"], ""), (["vm"], "1")]


async def test_a_console_is_connected_with_the_session(api: FakeXenApi, xe: ThinClient, vm: str) -> None:
    console = api.add("console", VM=vm, protocol="vt100", location="https://10.0.0.1/console?ref=x")
    api.row(vm)["consoles"] = [api.add("console", VM=vm, protocol="rfb", location="y"), console]
    outcome = await xe("console", "vm=web01")
    assert HttpConnect("https://10.0.0.1/console?ref=x&session_id=OpaqueRef:session-1") in outcome.commands
    assert outcome.status == 0
    xe.transfers = False
    assert (await xe("console", "vm=web01")).status == 1
    api.row(vm)["consoles"] = []
    assert (await xe("console", "vm=web01")).stderr.startswith("Error: ")


async def test_a_command_that_is_not_written_yet_never_succeeds(xe: ThinClient) -> None:
    outcome = await xe("host-restore", "file-name=x", "host=nothing")
    assert (outcome.stderr, outcome.status) == ("Error: The command 'host-restore' is not implemented yet\n", 1)
    assert (await xe("vm-export")).stderr.startswith("Required parameter not found: filename")


async def test_messages_are_made_about_the_first_object_that_is_named(api: FakeXenApi, xe: ThinClient) -> None:
    api.on["message.create"] = lambda *params: "OpaqueRef:m"
    await xe("message-create", "name=N", "priority=3", "body=b", "host-uuid=h", "pool-uuid=p")
    assert api.calls("message.create") == [("N", 3, "Pool", "p", "b")]
    assert (await xe("message-create", "name=N", "priority=3", "body=b")).status == 1
