from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.vm.backend import Disk, Domain, Nic
from services.vm.qemu import command_line
from services.vm.qemu.kernel import DirectBoot, direct_boot
from services.vm.qemu.paths import HostPaths
from shared.contracts.network import VifBackend
from shared.contracts.storage import Backend
from shared.contracts.vm import VbdSpec, VmSpec
from shared.errors import ApiError
from tests.vm import specs

PATHS = HostPaths(run=Path("/run/x"), logs=Path("/logs")).domain(7)
BOOT = DirectBoot(Path("/guest/vmlinuz"), Path("/guest/initrd"), "console=ttyS0, quiet")


def build(vm: VmSpec, boot: DirectBoot | None = BOOT, accel: str = "tcg", kind: str = "user") -> list[str]:
    disks = tuple(Disk(vbd, backend_of(vbd) if vbd.sr else None) for vbd in vm.vbds)
    nics = tuple(
        Nic(vif, VifBackend(vm=vm.uuid, device=vif.device, kind=kind, name=f"tap{vif.device}")) for vif in vm.vifs
    )
    domain = Domain(vm=vm, domid=7, disks=disks, nics=nics)
    return command_line.command_line("qemu", domain, PATHS, accel, boot)


def backend_of(vbd: VbdSpec, **fields: Any) -> Backend:
    settings: dict[str, Any] = {"kind": "file", "path": f"/sr/{vbd.location}", "format": "qcow2", "writable": True}
    return Backend(dp=vbd.device, **{**settings, **fields})


def values(line: list[str], option: str) -> list[str]:
    return [line[index + 1] for index, word in enumerate(line) if word == option]


def devices(line: list[str]) -> dict[str, dict[str, Any]]:
    found = [json.loads(value) for value in values(line, "-device")]
    return {device.get("id", device["driver"]): device for device in found}


def blocks(line: list[str]) -> dict[str, dict[str, Any]]:
    found = [json.loads(value) for value in values(line, "-blockdev")]
    return {block["node-name"]: block for block in found}


def test_a_direct_boot_vm_starts_its_kernel_and_has_no_graphics() -> None:
    line = build(specs.vm())
    assert values(line, "-kernel") == ["/guest/vmlinuz"]
    assert values(line, "-initrd") == ["/guest/initrd"]
    assert values(line, "-append") == ["console=ttyS0, quiet"]
    assert not values(line, "-vnc")
    assert "VGA" not in devices(line)
    assert [console.protocol for console in command_line.consoles(specs.vm())] == ["vt100"]


def test_it_waits_detached_and_stays_when_its_guest_stops() -> None:
    line = build(specs.vm())
    assert {"-daemonize", "-S"} <= set(line)
    assert values(line, "-action") == ["reboot=shutdown,shutdown=pause,panic=pause"]
    assert values(line, "-pidfile") == ["/run/x/7.pid"]


def test_memory_and_processors_are_those_of_the_vm() -> None:
    line = build(specs.vm(memory_dynamic_max=300 * 2**20, vcpus_max=4, vcpus_at_startup=2))
    assert values(line, "-m") == ["size=300M"]
    assert values(line, "-smp") == ["cpus=2,maxcpus=4"]


@pytest.mark.parametrize(("accel", "cpu"), [("kvm", "host"), ("tcg", "max")])
def test_the_processor_goes_with_the_accelerator(accel: str, cpu: str) -> None:
    line = build(specs.vm(), accel=accel)
    assert values(line, "-machine") == [f"q35,accel={accel}"]
    assert values(line, "-cpu") == [cpu]


def test_a_name_cannot_add_options() -> None:
    line = build(specs.vm(name="a,debug-threads=on\nb" + "x" * 100))
    assert values(line, "-name")[0].startswith("guest=a,,debug-threads=on?bxxx")
    assert len(values(line, "-name")[0]) < 80


def test_disks_are_writable_only_when_both_sides_say_so() -> None:
    vm = specs.vm(vbds=[specs.disk("0"), specs.disk("1", mode="RO"), specs.disk("2", type="CD")])
    nodes = blocks(build(vm))
    assert [nodes[f"disk-{n}"]["read-only"] for n in (0, 1, 2)] == [False, True, True]
    image = nodes["disk-0"]["file"]
    assert image["file"] == {"driver": "file", "filename": "/sr/disk-0", "read-only": False}
    assert [nodes[f"disk-{n}"]["file"]["read-only"] for n in (0, 1, 2)] == [False, True, True]


def test_disks_have_the_order_of_their_positions_whatever_that_of_the_request() -> None:
    vm = specs.vm(vbds=[specs.disk("10"), specs.disk("2"), specs.disk("0")])
    assert [name for name in devices(build(vm)) if name.startswith("vbd-")] == ["vbd-0", "vbd-2", "vbd-10"]


@pytest.mark.parametrize(
    ("fields", "driver", "source"),
    [
        ({"format": "raw"}, "raw", {"driver": "file", "filename": "/p"}),
        ({"format": "vhd"}, "vpc", {"driver": "file", "filename": "/p"}),
        ({"kind": "block", "format": "raw"}, "raw", {"driver": "host_device", "filename": "/p"}),
        (
            {"kind": "nbd", "format": "raw", "path": "nbd:unix:/s:exportname=e"},
            "raw",
            {"driver": "nbd", "server": {"type": "unix", "path": "/s"}, "export": "e"},
        ),
    ],
)
def test_every_kind_of_disk_has_its_driver(fields: dict[str, str], driver: str, source: dict[str, Any]) -> None:
    vbd = specs.disk()
    domain = Domain(vm=specs.vm(vbds=[vbd]), domid=7, disks=(Disk(vbd, backend_of(vbd, **{"path": "/p", **fields})),))
    block = blocks(command_line.command_line("qemu", domain, PATHS, "tcg", BOOT))["disk-0"]["file"]
    assert block["driver"] == driver
    assert {**block["file"], "read-only": False} == {**source, "read-only": False}


def test_a_device_has_a_node_that_stays_when_images_come_and_go() -> None:
    line = build(specs.vm(vbds=[specs.disk("0")]))
    node = blocks(line)["disk-0"]
    assert devices(line)["vbd-0"]["drive"] == "disk-0"
    assert node["driver"] == "throttle"
    assert json.loads(values(line, "-object")[0]) == {"qom-type": "throttle-group", "id": node["throttle-group"]}
    assert node["file"]["node-name"].startswith("image-0-")


def test_a_disk_without_content_cannot_be_opened() -> None:
    vbd = specs.disk()
    domain = Domain(vm=specs.vm(vbds=[vbd]), domid=7, disks=(Disk(vbd, backend_of(vbd, format="none")),))
    with pytest.raises(ApiError, match="format 'none'"):
        command_line.command_line("qemu", domain, PATHS, "tcg", BOOT)


def test_vifs_are_on_the_tap_of_the_network_service() -> None:
    line = build(specs.vm(vifs=[specs.vif("3", mtu=9000)]), kind="tap")
    assert values(line, "-netdev") == ["tap,id=net-vif-3,ifname=tap3,script=no,downscript=no"]
    nic = devices(line)["vif-3"]
    assert (nic["driver"], nic["mac"], nic["host_mtu"], nic["netdev"]) == (
        "virtio-net-pci",
        "02:00:00:00:00:01",
        9000,
        "net-vif-3",
    )


@pytest.mark.parametrize(
    ("order", "expected"),
    [("cd", ["vbd-0", "vbd-1", "vbd-3"]), ("dc", ["vbd-3", "vbd-0", "vbd-1"]), ("d", ["vbd-3"]), ("n", ["vif-0"])],
)
def test_firmware_boots_in_the_order_of_the_vm(order: str, expected: list[str]) -> None:
    vm = specs.vm(
        domain_type="hvm",
        hvm_boot_params={"order": order},
        vbds=[specs.disk("0"), specs.disk("1"), specs.empty_cd("3")],
        vifs=[specs.vif()],
    )
    line = build(vm, None)
    booted = {name: device["bootindex"] for name, device in devices(line).items() if "bootindex" in device}
    assert sorted(booted, key=booted.__getitem__) == expected
    assert values(line, "-vnc") == ["unix:/run/x/7.vnc"]
    assert {console.protocol for console in command_line.consoles(vm)} == {"rfb", "vt100"}


@pytest.mark.parametrize(
    "fields",
    [
        {"domain_type": "hvm", "hvm_boot_params": {"firmware": "uefi"}},
        {"platform": {"machine": "isapc"}},
        {"platform": {"nic_type": "ne2k"}},
        {"platform": {"vga": "qxl"}},
        {"vbds": [specs.disk(type="Floppy")]},
        {"vbds": [specs.empty_cd(str(n)) for n in range(7)]},
    ],
)
def test_what_it_cannot_build_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        command_line.check(specs.vm(**fields))
    assert caught.value.code == "VALUE_NOT_SUPPORTED"


# ---- kernels


@pytest.fixture
def guests(tmp_path: Path) -> Path:
    folder = tmp_path / "guest"
    (folder / "v1").mkdir(parents=True)
    (folder / "v1" / "vmlinuz").write_text("kernel")
    (folder / "kernel").symlink_to("v1/vmlinuz")
    (folder / "out").symlink_to("/etc/passwd")
    (tmp_path / "secret").write_text("not for guests")
    return folder


@pytest.mark.parametrize("name", ["kernel", "v1/vmlinuz", "./kernel", "/var/lib/xcp/guest/kernel", "{folder}/kernel"])
def test_a_kernel_of_the_guest_folder_may_be_booted(guests: Path, name: str) -> None:
    boot = direct_boot(specs.vm(pv_kernel=name.format(folder=guests), pv_ramdisk="", pv_args="a"), guests)
    assert boot == DirectBoot(guests / "v1" / "vmlinuz", None, "a")


@pytest.mark.parametrize(
    "name",
    ["", "../secret", "/etc/passwd", "out", "v1", "absent", "{folder}/../secret", "a\0b", "x" * 300, "x/" * 3000],
)
@pytest.mark.parametrize("field", ["pv_kernel", "pv_ramdisk"])
def test_no_other_file_of_the_host_may_be_booted(guests: Path, name: str, field: str) -> None:
    if field == "pv_ramdisk" and not name:
        return
    fields = {"pv_kernel": "kernel", "pv_ramdisk": "", field: name.format(folder=guests)}
    with pytest.raises(ApiError) as caught:
        direct_boot(specs.vm(**fields), guests)
    assert caught.value.code == "INVALID_VALUE"
    assert caught.value.params[0] == field.removeprefix("pv_")


def test_a_bootloader_is_refused(guests: Path) -> None:
    with pytest.raises(ApiError, match="BOOTLOADER_FAILED"):
        direct_boot(specs.vm(pv_bootloader="pygrub"), guests)
