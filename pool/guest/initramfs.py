"""The guest's whole file system: busybox, a few kernel modules, and our start script."""

from __future__ import annotations

import gzip
from importlib import resources

from pool.guest.cpio import Entry, archive, character_device, directory, regular, symlink

MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_balloon", "evdev", "button", "pvpanic_pci")
"""Drivers the guest loads, in this order; what they need comes with them."""

_FOLDERS = ("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "lib/modules", "proc", "root", "run", "sys", "tmp")
_SCRIPTS = {
    "init": "init",
    "etc/rc": "rc",
    "etc/dhcp": "dhcp",
    "etc/acpi/PWRF/00000080": "power-button",
}
"""Path in the guest to file in `files/`."""
_TEXTS = {
    "etc/passwd": "root::0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hostname": "tiny-guest\n",
    "etc/issue": "\nThe bundled tiny guest. Log in as root, without a password.\n\n",
    "etc/profile": "export PATH=/bin PS1='tiny-guest:\\w# '\n",
    "etc/inittab": (
        "::sysinit:/etc/rc\n"
        "::respawn:/bin/acpid -f -l /dev/null\n"
        "ttyS0::respawn:/bin/getty -L 115200 ttyS0 vt100\n"
        "::ctrlaltdel:/bin/reboot -f\n"
    ),
}


def script(name: str) -> bytes:
    return resources.files("pool.guest").joinpath("files", name).read_bytes()


def recipe() -> bytes:
    """Everything but the packages that decides what the initramfs is."""
    return repr((MODULES, _FOLDERS, _TEXTS)).encode() + b"".join(script(name) for name in _SCRIPTS.values())


def image(busybox: bytes, modules: list[tuple[str, bytes]]) -> bytes:
    """The initramfs, gzipped. `modules`: name and content in load order."""
    entries: list[Entry] = [directory(name) for name in _FOLDERS]
    entries.append(character_device("dev/console", 5, 1))
    entries.append(regular("bin/busybox", busybox, 0o755))
    entries.append(symlink("bin/sh", "busybox"))
    entries += [regular(path, script(name), 0o755) for path, name in _SCRIPTS.items()]
    entries += [regular(path, text.encode()) for path, text in _TEXTS.items()]
    entries += [regular(f"lib/modules/{name}.ko", content) for name, content in modules]
    entries.append(regular("lib/modules/order", "".join(f"{name}\n" for name, _ in modules).encode()))
    return gzip.compress(archive(entries), mtime=0)
