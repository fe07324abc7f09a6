"""The machine's PCI and USB devices, from sysfs, and what they are called, from the lists that distributions bring."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

from shared.contracts.host import Devices, PciDevice, UsbDevice

SYSFS: Final = Path("/sys")
LISTS: Final = (Path("/usr/share/hwdata"), Path("/usr/share/misc"))

MANAGED: Final = ("01", "02", "03")
"""Classes of PCI devices that VMs are given: storage, network, display."""
HUB: Final = "09"
"""The class of USB devices that only carry others."""

Names = dict[tuple[str, ...], str]
"""Of (vendor,), (vendor, device), (vendor, device, subsystem's vendor, subsystem's device), ("C", class, subclass)."""


async def found(owned: bool) -> Devices:
    """None, where the machine is not the host's own: many hosts would have the same."""
    return await asyncio.to_thread(read, SYSFS, LISTS) if owned else Devices()


def read(sysfs: Path, lists: tuple[Path, ...]) -> Devices:
    return Devices(pci=_pci(sysfs / "bus/pci/devices", lists), usb=_usb(sysfs / "bus/usb/devices", lists))


# ---- PCI


def _pci(folder: Path, lists: tuple[Path, ...]) -> list[PciDevice]:
    """Devices of the managed classes, and the other functions of their slots."""
    present = {path.name: path for path in sorted(folder.iterdir())} if folder.is_dir() else {}
    slots = {address.partition(".")[0] for address, path in present.items() if _class(path)[:2] in MANAGED}
    chosen = {address: path for address, path in present.items() if address.partition(".")[0] in slots}
    vendors = {_id(path, name) for path in chosen.values() for name in ("vendor", "subsystem_vendor")}
    names = _names("pci.ids", lists, vendors)
    return [_pci_device(path, list(chosen), names) for path in chosen.values()]


def _pci_device(path: Path, addresses: list[str], names: Names) -> PciDevice:
    vendor, device, kind = _id(path, "vendor"), _id(path, "device"), _class(path)
    by, what = _id(path, "subsystem_vendor"), _id(path, "subsystem_device")
    slot = path.name.partition(".")[0]
    return PciDevice(
        address=path.name,
        class_id=kind,
        class_name=names.get(("C", kind[:2], kind[2:]), names.get(("C", kind[:2]), kind)),
        vendor_id=vendor,
        vendor_name=names.get((vendor,), vendor),
        device_id=device,
        device_name=names.get((vendor, device), device),
        subsystem_vendor_id=by,
        subsystem_vendor_name=names.get((by,), by),
        subsystem_device_id=what,
        subsystem_device_name=names.get((vendor, device, by, what), what),
        driver=_link(path / "driver"),
        physical=_link(path / "physfn"),
        related=[other for other in addresses if other.partition(".")[0] == slot and other != path.name],
        boots_display=_text(path / "boot_vga") == "1",
    )


def _class(path: Path) -> str:
    """Class and subclass, without the programming interface."""
    return _text(path / "class").removeprefix("0x")[:4]


def _id(path: Path, name: str) -> str:
    return _text(path / name).removeprefix("0x").lower()


def _link(path: Path) -> str:
    return path.resolve().name if path.is_symlink() else ""


# ---- USB


def _usb(folder: Path, lists: tuple[Path, ...]) -> list[UsbDevice]:
    """Devices that are no hubs; interfaces of devices have a colon in their names."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    chosen = [path for path in paths if ":" not in path.name and _text(path / "bDeviceClass") not in ("", HUB)]
    names = _names("usb.ids", lists, {_id(path, "idVendor") for path in chosen})
    return [_usb_device(path, names) for path in chosen]


def _usb_device(path: Path, names: Names) -> UsbDevice:
    vendor, product, serial = _id(path, "idVendor"), _id(path, "idProduct"), _text(path / "serial")
    maker = names.get((vendor,)) or _text(path / "manufacturer") or vendor
    what = names.get((vendor, product)) or _text(path / "product") or product
    return UsbDevice(
        path=path.name,
        vendor_id=vendor,
        vendor_desc=maker,
        product_id=product,
        product_desc=what,
        serial=serial,
        version=_text(path / "version"),
        description="_".join(part for part in (maker, what, serial) if part),
        speed=_number(_text(path / "speed")),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _text(path: Path) -> str:
    """ "" for a file that a device lacks, or that went with it just now."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


# ---- names

_LINE: Final = re.compile(r"(\t{0,2})(?:(C) )?([0-9a-f]{2,4})(?: ([0-9a-f]{4}))?  (.+)")


def _names(file: str, lists: tuple[Path, ...], vendors: Container[str]) -> Names:
    """What those vendors' devices are called, and all classes; nothing without a list."""
    path = next((folder / file for folder in lists if (folder / file).is_file()), None)
    return dict(_read_list(path, vendors)) if path is not None else {}


def _read_list(path: Path, vendors: Container[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    above: list[str] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = _LINE.match(line)
            if match is None:
                if line.strip() and not line.startswith(("#", "\t")):
                    above = []  # a section of another kind
                continue
            tabs, kind, first, second, name = match.groups()
            depth = len(tabs)
            if depth == 0:
                above = ["C", first] if kind else [first] if first in vendors else []
            elif not above:
                continue
            else:
                base = 2 if above[0] == "C" else 1
                above = [*above[: base + depth - 1], first, *([second] if second else [])]
            if above:
                yield tuple(above), name.strip()
