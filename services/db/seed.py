"""The rows of a new pool, from a description: hosts with their control domains, networks, the default SR, templates."""

from __future__ import annotations

import hashlib
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

import msgspec

from services.db.restrictions import RESTRICTIONS
from shared.contracts.db import Change, Create
from shared.store import NULL

MIB = 1024 * 1024
GIB = 1024 * MIB

API_VERSION = (2, 23)
OTHER_INSTALL_MEDIA = "552bce37-51b2-445d-84f2-5f33fa112d7e"


class PoolSeed(msgspec.Struct, frozen=True):
    uuid: str
    name_label: str = ""


class HostSeed(msgspec.Struct, frozen=True):
    """`nics`: network cards, `eth0` (for management) and on; those of one name are on one network."""

    uuid: str
    name: str
    address: str
    coordinator: bool = False
    simulated: bool = False
    nics: int = 1


class SrSeed(msgspec.Struct, frozen=True):
    """The default SR, shared by all hosts. `device_config` overrides `location`."""

    uuid: str
    name_label: str
    type: str
    location: str = ""
    device_config: dict[str, str] = {}


class NetworkSeed(msgspec.Struct, frozen=True):
    uuid: str
    name_label: str
    bridge: str


class GuestSeed(msgspec.Struct, frozen=True):
    """Files of the bundled tiny guest; "" where there are none (the simulator does not read them)."""

    kernel: str = ""
    ramdisk: str = ""
    args: str = ""
    platform: dict[str, str] = {}


class Seed(msgspec.Struct, frozen=True):
    pool: PoolSeed
    hosts: list[HostSeed]
    network: NetworkSeed
    sr: SrSeed | None = None
    templates: bool = True
    guest: GuestSeed = GuestSeed()


class SeedError(Exception):
    """The description of the pool cannot be used."""


def load(path: Path) -> Seed:
    try:
        seed = msgspec.json.decode(path.read_bytes(), type=Seed)
    except (OSError, msgspec.DecodeError) as error:
        raise SeedError(f"{path}: {error}") from error
    if sum(host.coordinator for host in seed.hosts) != 1:
        raise SeedError(f"{path}: exactly one host must be the coordinator")
    return seed


class Add(Protocol):
    def __call__(self, cls: str, *, ref: str = "", **fields: Any) -> str: ...


def _ref() -> str:
    return f"OpaqueRef:{uuid.uuid4()}"


def _mac(host: str, device: str) -> str:
    digest = hashlib.sha256(f"{host}/{device}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in bytes([0x02]) + digest[:5])


def changes(seed: Seed) -> list[Change]:
    """One `Create` for every row."""
    rows: list[Change] = []

    def add(cls: str, *, ref: str = "", **fields: Any) -> str:
        ref = ref or _ref()
        rows.append(Create(cls=cls, ref=ref, fields=fields))
        return ref

    now = time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime())
    network = add(
        "network",
        uuid=seed.network.uuid,
        name_label=seed.network.name_label,
        name_description="",
        bridge=seed.network.bridge,
        other_config={},
    )
    add(
        "network",
        name_label="Host internal management network",
        name_description="Network on which guests will be assigned a private link-local IP address",
        bridge="xenapi",
        other_config={"is_guest_installer_network": "true", "is_host_internal_management_network": "true"},
    )
    networks = [network]
    for number in range(1, max(host.nics for host in seed.hosts)):
        label = f"Pool-wide network associated with eth{number}"
        networks.append(add("network", name_label=label, name_description="", bridge=f"xenbr{number}"))
    hosts = {host.uuid: _add_host(add, host, networks, now) for host in seed.hosts}
    master = next(hosts[host.uuid] for host in seed.hosts if host.coordinator)
    sr = NULL
    if seed.sr is not None:
        sr = add(
            "SR",
            uuid=seed.sr.uuid,
            name_label=seed.sr.name_label,
            name_description="Default storage of the pool",
            type=seed.sr.type,
            content_type="user",
            shared=True,
            default_vdi_visibility=True,
        )
        config = seed.sr.device_config or ({"location": seed.sr.location} if seed.sr.location else {})
        for host in hosts.values():
            add("PBD", host=host, SR=sr, device_config=config, currently_attached=False)
    add(
        "pool",
        uuid=seed.pool.uuid,
        name_label=seed.pool.name_label,
        name_description="",
        master=master,
        default_SR=sr,
        suspend_image_SR=sr,
        crash_dump_SR=sr,
        other_config={},
        restrictions=RESTRICTIONS,
    )
    for template in (_tiny_guest(seed.guest), _other_install_media()) if seed.templates else ():
        add("VM", **template)
    return rows


def _add_host(add: Add, host: HostSeed, networks: list[str], now: str) -> str:
    ref, domain = _ref(), _ref()
    metrics = add("host_metrics", live=False, last_updated=now, memory_total=0, memory_free=0)
    add(
        "host",
        ref=ref,
        control_domain=domain,
        uuid=host.uuid,
        name_label=host.name,
        name_description="Default install",
        hostname=host.name,
        address=host.address,
        API_version_major=API_VERSION[0],
        API_version_minor=API_VERSION[1],
        API_version_vendor="XenSource",
        enabled=False,
        sched_policy="credit",
        metrics=metrics,
        virtual_hardware_platform_versions=[0, 1, 2],
        other_config={"simulated": "true"} if host.simulated else {},
        edition="free/libre",
        license_params=RESTRICTIONS,
    )
    vm_metrics = add("VM_metrics", start_time=now, install_time=now, last_updated=now, VCPUs_number=1)
    add(
        "VM",
        ref=domain,
        name_label=f"Control domain on host: {host.name}",
        name_description="The domain which manages physical devices and manages other domains",
        is_control_domain=True,
        user_version=1,
        power_state="Running",
        domid=0,
        resident_on=ref,
        affinity=ref,
        metrics=vm_metrics,
        VCPUs_max=1,
        VCPUs_at_startup=1,
        memory_static_min=0,
        memory_static_max=0,
        memory_dynamic_min=0,
        memory_dynamic_max=0,
        domain_type="pv",
        actions_after_shutdown="destroy",
        actions_after_reboot="destroy",
        actions_after_crash="destroy",
        has_vendor_device=False,
    )
    for number in range(host.nics):
        _add_pif(add, host, ref, networks[number], number, now)
    return ref


def _add_pif(add: Add, host: HostSeed, ref: str, network: str, number: int, now: str) -> None:
    """A network card; the first is the host's address."""
    device = f"eth{number}"
    management: dict[str, Any] = {
        "currently_attached": True,
        "ip_configuration_mode": "Static",
        "IP": host.address,
        "netmask": "255.0.0.0",
        "management": True,
    }
    metrics = add("PIF_metrics", carrier=True, speed=0, duplex=True, last_updated=now)
    add(
        "PIF",
        device=device,
        network=network,
        host=ref,
        MAC=_mac(host.uuid, device),
        MTU=1500,
        VLAN=-1,
        metrics=metrics,
        physical=True,
        properties={"gro": "on"},
        **(management if number == 0 else {}),
    )


_COMMON_PLATFORM = {"nx": "true", "acpi": "1", "apic": "true", "pae": "true", "hpet": "true"}


def _tiny_guest(guest: GuestSeed) -> dict[str, Any]:
    """The bundled guest: a Linux kernel and a busybox initramfs, booted directly; it needs no disk."""
    return {
        "name_label": "Tiny guest",
        "name_description": "Bundled Linux guest (kernel and busybox), for trying things out; needs no disk",
        "is_a_template": True,
        "is_default_template": True,
        "domain_type": "pvh",
        "memory_static_min": 96 * MIB,
        "memory_dynamic_min": 128 * MIB,
        "memory_dynamic_max": 128 * MIB,
        "memory_static_max": 128 * MIB,
        "VCPUs_max": 1,
        "VCPUs_at_startup": 1,
        "PV_kernel": guest.kernel,
        "PV_ramdisk": guest.ramdisk,
        "PV_args": guest.args or "console=ttyS0 quiet",
        "platform": {**_COMMON_PLATFORM, **guest.platform},
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "other_config": {"default_template": "true", "mac_seed": str(uuid.uuid4()), "linux_template": "true"},
        "recommendations": (
            "<restrictions>"
            '<restriction field="memory-static-max" max="1649267441664"/>'
            '<restriction field="vcpus-max" max="32"/>'
            '<restriction property="number-of-vbds" max="255"/>'
            '<restriction property="number-of-vifs" max="7"/>'
            "</restrictions>"
        ),
        "has_vendor_device": False,
        "reference_label": "tiny-guest",
    }


def _other_install_media() -> dict[str, Any]:
    return {
        "uuid": OTHER_INSTALL_MEDIA,
        "name_label": "Other install media",
        "name_description": "Template which allows VM installation from install media",
        "is_a_template": True,
        "is_default_template": True,
        "domain_type": "hvm",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "cd", "firmware": "bios"},
        "memory_static_min": 128 * MIB,
        "memory_dynamic_min": 256 * MIB,
        "memory_dynamic_max": 256 * MIB,
        "memory_static_max": 256 * MIB,
        "VCPUs_max": 1,
        "VCPUs_at_startup": 1,
        "platform": {**_COMMON_PLATFORM, "viridian": "true", "secureboot": "false"},
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "other_config": {"default_template": "true", "mac_seed": str(uuid.uuid4()), "install-methods": "cdrom"},
        "recommendations": (
            "<restrictions>"
            f'<restriction field="memory-static-max" max="{128 * GIB}"/>'
            '<restriction field="vcpus-max" max="32"/>'
            '<restriction property="number-of-vbds" max="255"/>'
            '<restriction property="number-of-vifs" max="7"/>'
            "</restrictions>"
        ),
        "has_vendor_device": False,
        "reference_label": "other-install-media",
    }
