"""Names of block nodes, and what QEMU is told to open. Pure."""

from __future__ import annotations

import secrets
from typing import Any

from services.vm.backend import Disk
from shared.contracts.storage import Backend as DiskBackend
from shared.errors import ApiError

FORMATS = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc"}
"""QEMU's drivers of the formats of `shared.contracts.storage.Backend`."""
NBD = "nbd:unix:"
EXPORT = ":exportname="

ON_ERROR = {"rerror": "enospc", "werror": "enospc"}
"""Of devices: on "no space" the guest is stopped, and asks again when it goes on; other errors it is told."""


def device_id(device: str) -> str:
    return f"vbd-{device}"


def node(device: str) -> str:
    """What the device reads and writes as long as it has a medium."""
    return f"disk-{device}"


def device_of(name: str) -> str:
    """The device that has such a node; "" for other nodes."""
    kind, _, device = name.partition("-")
    return device if kind == "disk" and device.isdecimal() else ""


def device_of_path(path: str) -> str:
    """The device to which an object of QEMU's machine belongs, such as `/machine/peripheral/vbd-1/virtio-backend`;
    "" for others. Drives are called by their id alone.
    """
    part = next((part for part in path.split("/") if part.startswith("vbd-")), "")
    return part.removeprefix("vbd-")


def throttle_group(device: str) -> str:
    return f"throttle-{device}"


def image_node(device: str) -> str:
    """A new name."""
    return f"image-{device}-{secrets.token_hex(4)}"


PORT = "hotplug-"
"""Begins the names of ports that take devices of a running machine."""
CLOSED = "closed-"
"""Begins the names of what is under `disk-<n>` while its images are closed."""
DEAD = "dead-"
"""The same after the disk was taken from a guest that still holds the device."""


def opened(device: str) -> str:
    """The object that says, while a disk is paused, what was open."""
    return f"opened-{device}"


def is_ours(name: str, device: str) -> bool:
    """Whether a node was opened here for that device, to be closed here."""
    return name.startswith(f"image-{device}-") or name in (CLOSED + device, DEAD + device)


def is_writable(disk: Disk) -> bool:
    backend, spec = disk.backend, disk.spec
    return backend is not None and backend.writable and spec.mode == "RW" and spec.type != "CD"


def disk_device(device: str) -> dict[str, Any]:
    """The device of a disk; those of CDs differ."""
    return {"driver": "virtio-blk-pci", "id": device_id(device), "drive": node(device), **ON_ERROR}


def group(device: str) -> dict[str, Any]:
    """The object that a device's node needs."""
    return {"qom-type": "throttle-group", "id": throttle_group(device)}


def filtered(device: str, file: dict[str, Any] | str, *, writable: bool) -> dict[str, Any]:
    """The node of a device over an image, described or named."""
    return {
        "driver": "throttle",
        "node-name": node(device),
        "throttle-group": throttle_group(device),
        "read-only": not writable,
        "file": file,
    }


def image(backend: DiskBackend, name: str, *, writable: bool) -> dict[str, Any]:
    """An image with all those below it. Raises INTERNAL_ERROR for what QEMU cannot open."""
    if backend.format not in FORMATS:
        raise ApiError("INTERNAL_ERROR", f"QEMU cannot open a disk of format {backend.format!r}: {backend.path}")
    return {
        "driver": FORMATS[backend.format],
        "node-name": name,
        "read-only": not writable,
        "discard": "unmap",
        "file": {**_source(backend), "read-only": not writable},
    }


def _shared(backend: DiskBackend) -> dict[str, Any]:
    """How a file is opened that other VMs write to: without QEMU's own locks, and so that all see what is written."""
    return {"locking": "off", "cache": {"direct": backend.direct}} if backend.shared else {}


def _source(backend: DiskBackend) -> dict[str, Any]:
    match backend.kind:
        case "file":
            return {"driver": "file", "filename": backend.path, **_shared(backend)}
        case "block":
            return {"driver": "host_device", "filename": backend.path, **_shared(backend)}
        case "nbd":
            path, _, export = backend.path.removeprefix(NBD).partition(EXPORT)
            return {"driver": "nbd", "server": {"type": "unix", "path": path}, "export": export}
        case other:
            raise ApiError("INTERNAL_ERROR", f"QEMU cannot open a disk of kind {other!r}: {backend.path}")
