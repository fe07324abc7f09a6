"""The QEMU command line of a domain. Pure.

The machine is q35 for all domain types: its timers are reliable without KVM (microvm's clock calibration fails on a
busy machine, and the kernel then hangs), its boot is less than a second slower, and it can take devices later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.vm.backend import Disk, Domain, Nic
from services.vm.checks import DIRECT_BOOT
from services.vm.qemu.disks import nodes
from services.vm.qemu.kernel import DirectBoot
from services.vm.qemu.paths import DomainPaths
from shared.contracts.vm import ConsoleInfo, VmSpec
from shared.errors import ApiError

CPU = {"kvm": "host", "tcg": "max"}
MACHINES = ("q35", "pc")
NIC_MODELS = {"": "virtio-net-pci", "virtio": "virtio-net-pci", "e1000": "e1000", "rtl8139": "rtl8139"}
VGA = {"": "VGA", "std": "VGA", "cirrus": "cirrus-vga"}
MAX_CDS = 6
"""Ports of q35's SATA controller."""
PC_MAX_CDS = 4
PORTS = 16
FREE_PORTS = 8
"""At least so many ports for disks, and for those that come while the machine runs."""
LAST_PORT_SLOT = 0x1E
"""Of the main bus, far from those that QEMU gives to other devices."""


def check(vm: VmSpec) -> None:
    """Raises VALUE_NOT_SUPPORTED for what these command lines cannot say."""
    firmware = vm.hvm_boot_params.get("firmware", "bios") or "bios"
    if vm.domain_type == "hvm" and firmware != "bios":
        raise ApiError("VALUE_NOT_SUPPORTED", "HVM_boot_params:firmware", firmware, "only bios")
    machine = vm.platform.get("machine", "q35")
    _choose("platform:machine", machine, {name: name for name in MACHINES})
    _choose("platform:nic_type", vm.platform.get("nic_type", ""), NIC_MODELS)
    _choose("platform:vga", vm.platform.get("vga", ""), VGA)
    if any(vbd.type == "Floppy" for vbd in vm.vbds):
        raise ApiError("VALUE_NOT_SUPPORTED", "VBD.type", "Floppy", "there are no floppy drives")
    cds = sum(vbd.type == "CD" for vbd in vm.vbds)
    most = MAX_CDS if machine == "q35" else PC_MAX_CDS
    if cds > most:
        raise ApiError("VALUE_NOT_SUPPORTED", "VBDs", cds, f"at most {most} CD drives")


def consoles(vm: VmSpec) -> list[ConsoleInfo]:
    """A direct-boot VM has no graphics."""
    names = ["vt100"] if vm.domain_type in DIRECT_BOOT else ["rfb", "vt100"]
    return [ConsoleInfo(protocol=name) for name in names]


def command_line(binary: str, domain: Domain, paths: DomainPaths, accel: str, boot: DirectBoot | None) -> list[str]:
    """`boot`: for a VM that starts its kernel directly; None for one with firmware."""
    vm = domain.vm
    return [
        binary,
        *_process(vm, paths),
        *_machine(domain, accel),
        *(_firmware(vm) if boot is None else _direct(boot)),
        *_character_devices(paths, vga=boot is None),
        *_ports(domain),
        *_disks(domain, boot is None),
        *_nics(domain, boot is None),
    ]


def _process(vm: VmSpec, paths: DomainPaths) -> Iterator[str]:
    """A detached process that stops for good, instead of ending, when its guest powers off, reboots or panics.

    Seen from outside it is then known why, also if nobody was listening at that moment.
    """
    yield from ("-name", f"guest={_printable(vm.name_label)}", "-uuid", vm.uuid)
    yield from ("-daemonize", "-pidfile", str(paths.pid), "-S", "-nodefaults", "-no-user-config")
    yield from ("-action", "reboot=shutdown,shutdown=pause,panic=pause")
    yield from ("-sandbox", "on,obsolete=deny,resourcecontrol=deny", "-display", "none")


def _machine(domain: Domain, accel: str) -> Iterator[str]:
    vm = domain.vm
    yield from ("-machine", f"{vm.platform.get('machine', 'q35')},accel={accel}", "-cpu", CPU[accel])
    yield from ("-m", f"size={domain.memory // 2**20}M")
    yield from ("-smp", f"cpus={vm.vcpus_at_startup},maxcpus={vm.vcpus_max}")
    yield from ("-rtc", "base=utc")
    yield from ("-device", _json(driver="pvpanic-pci"))


def _direct(boot: DirectBoot) -> Iterator[str]:
    yield from ("-kernel", str(boot.kernel))
    if boot.ramdisk is not None:
        yield from ("-initrd", str(boot.ramdisk))
    if boot.args:
        yield from ("-append", boot.args)


def _firmware(vm: VmSpec) -> Iterator[str]:
    yield from ("-boot", "strict=on,menu=off")
    megabytes = vm.platform.get("videoram", "")
    sensible = megabytes.isdecimal() and len(megabytes) < 10 and int(megabytes) > 0
    memory = {"vgamem_mb": int(megabytes)} if sensible else {}
    yield from ("-device", _json(driver=VGA[vm.platform.get("vga", "")], **memory))
    if vm.platform.get("usb", "true") != "false" and vm.platform.get("usb_tablet", "true") != "false":
        yield from ("-device", _json(driver="qemu-xhci", id="usb"), "-device", _json(driver="usb-tablet"))


def _character_devices(paths: DomainPaths, *, vga: bool) -> Iterator[str]:
    # QMP's log file keeps the events that are sent while nobody is connected: the reason why a guest has stopped
    yield from ("-chardev", _socket("qmp", paths.qmp, paths.events), "-mon", "chardev=qmp,mode=control")
    yield from ("-chardev", _socket("serial0", paths.serial, paths.output))
    yield from ("-device", _json(driver="isa-serial", chardev="serial0"))
    if vga:
        yield from ("-vnc", f"unix:{_escaped(paths.vnc)}")


def _ports(domain: Domain) -> Iterator[str]:
    """The main bus of a q35 takes no devices once it runs, and gives none back; these do, one each. Eight are one
    device of the bus.
    """
    if domain.vm.platform.get("machine", "q35") != "q35":
        return
    slots = -(-max(PORTS, FREE_PORTS + len(_hard(domain))) // 8)
    for number in range(8 * slots):
        slot, function = divmod(number, 8)
        port = {"id": f"{nodes.PORT}{number}", "chassis": number + 1, "io-reserve": 0}
        where = {"addr": f"{LAST_PORT_SLOT + 1 - slots + slot:#x}.{function}", "multifunction": True}
        yield from ("-device", _json(driver="pcie-root-port", **port, **where))


def _hard(domain: Domain) -> list[Disk]:
    """In the order in which guests find them."""
    return sorted((disk for disk in domain.disks if disk.spec.type != "CD"), key=lambda disk: int(disk.spec.device))


def _disks(domain: Domain, firmware: bool) -> Iterator[str]:
    order = _boot_order(domain.vm) if firmware else ""
    q35 = domain.vm.platform.get("machine", "q35") == "q35"
    optical = sorted((disk for disk in domain.disks if disk.spec.type == "CD"), key=lambda disk: int(disk.spec.device))
    for number, disk in enumerate(_hard(domain)):
        yield from _block(disk)
        place = {"bus": f"{nodes.PORT}{number}"} if q35 else {}
        boot = _boot_index(order, "c", number)
        yield from ("-device", _json(**nodes.disk_device(disk.spec.device), **place, **boot))
    for number, disk in enumerate(optical):
        medium: dict[str, Any] = {}
        if disk.backend is not None:
            yield from _block(disk)
            medium = {"drive": nodes.node(disk.spec.device)}
        place = {"bus": f"ide.{number}"} if q35 else {}
        boot = _boot_index(order, "d", number)
        drive = {"driver": "ide-cd", "id": nodes.device_id(disk.spec.device), **nodes.ON_ERROR}
        yield from ("-device", _json(**drive, **medium, **place, **boot))


def _block(disk: Disk) -> Iterator[str]:
    backend, device = disk.backend, disk.spec.device
    if backend is None:
        raise ApiError("INTERNAL_ERROR", f"VBD {disk.spec.uuid} has no disk")
    writable = nodes.is_writable(disk)
    image = nodes.image(backend, nodes.image_node(device), writable=writable)
    yield from ("-object", _json(**nodes.group(device)))
    yield from ("-blockdev", _json(**nodes.filtered(device, image, writable=writable)))


def _nics(domain: Domain, firmware: bool) -> Iterator[str]:
    order = _boot_order(domain.vm) if firmware else ""
    model = NIC_MODELS[domain.vm.platform.get("nic_type", "")]
    for number, nic in enumerate(sorted(domain.nics, key=lambda nic: int(nic.spec.device))):
        name = f"vif-{nic.spec.device}"
        properties: dict[str, Any] = {"driver": model, "id": name, "mac": nic.spec.mac}
        if "n" not in order:
            properties["romfile"] = ""  # the boot ROM is a package of its own, which may not be there
        if nic.spec.mtu != 1500 and model == "virtio-net-pci":
            properties["host_mtu"] = nic.spec.mtu
        network = _network(nic, name)
        if network:
            yield from ("-netdev", network)
            properties["netdev"] = f"net-{name}"
        yield from ("-device", _json(**properties, **_boot_index(order, "n", number)))


def _network(nic: Nic, name: str) -> str:
    match nic.backend.kind:
        case "tap":
            return f"tap,id=net-{name},ifname={nic.backend.name},script=no,downscript=no"
        case "user":
            return f"user,id=net-{name}"
        case "none":
            return ""
        case other:
            raise ApiError("CANNOT_PLUG_VIF", nic.spec.ref, f"QEMU has no network of kind {other!r}")


def _boot_order(vm: VmSpec) -> str:
    """Letters c (disk), d (CD), n (network), without repetition."""
    order = vm.hvm_boot_params.get("order", "") or "cd"
    return "".join(dict.fromkeys(letter for letter in order.lower() if letter in "cdn"))


def _boot_index(order: str, letter: str, number: int) -> dict[str, int]:
    """Devices of an earlier letter come first; those of one letter by their position."""
    return {"bootindex": order.index(letter) * 300 + number + 1} if letter in order else {}


def _socket(name: str, path: Path, log: Path) -> str:
    return f"socket,id={name},path={_escaped(path)},server=on,wait=off,logfile={_escaped(log)},logappend=on"


def _choose(field: str, value: str, choices: dict[str, str]) -> None:
    if value not in choices:
        raise ApiError("VALUE_NOT_SUPPORTED", field, value, f"one of {', '.join(filter(None, choices))}")


def _json(**properties: Any) -> str:
    return json.dumps(properties)


def _escaped(value: object) -> str:
    """For values of QEMU's `name=value,...` syntax."""
    return str(value).replace(",", ",,")


def _printable(name: str) -> str:
    """A VM's name as a process's argument: any text, but no control characters and not without end."""
    return _escaped("".join(character if character.isprintable() else "?" for character in name)[:64])
