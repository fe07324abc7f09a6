"""The XML that templates carry (vm-lifecycle 5): disks to make (`other_config:disks`), limits (`recommendations`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lxml import etree

from shared.errors import ApiError

DISK_TYPES: Final = ("system", "user", "ephemeral", "suspend", "crashdump")
_SIZE: Final = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk to make. `device`: userdevice and name. `size`: bytes. `sr`: uuid, "" when nobody has filled it in."""

    device: str
    size: int
    sr: str
    bootable: bool
    type: str

    @property
    def unpluggable(self) -> bool:
        return self.type != "system"


@dataclass(frozen=True, slots=True)
class Restriction:
    """A limit that clients respect. `subject`: a field such as memory-static-max, or a property."""

    subject: str
    minimum: int | None = None
    maximum: int | None = None
    value: str | None = None


def _parse(name: str, text: str, root: str) -> etree._Element:
    """Raises INVALID_VALUE [name, text] for what is not that XML; external entities are never read."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        element = etree.fromstring(text.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ApiError("INVALID_VALUE", name, text) from error
    if element.tag != root:
        raise ApiError("INVALID_VALUE", name, text)
    return element


def disks(text: str) -> list[Disk]:
    """The disks of `other_config:disks`; "" has none. Raises INVALID_VALUE [disks, text]."""
    if not text.strip():
        return []
    return [_disk(element, text) for element in _parse("disks", text, "provision").iterchildren("disk")]


def _disk(element: etree._Element, text: str) -> Disk:
    size, kind = element.get("size", ""), element.get("type", "system")
    if not _SIZE.fullmatch(size) or kind not in DISK_TYPES or not element.get("device"):
        raise ApiError("INVALID_VALUE", "disks", text)
    return Disk(
        device=element.get("device", ""),
        size=int(size),
        sr=element.get("sr", ""),
        bootable=element.get("bootable", "false") == "true",
        type=kind,
    )


def restrictions(text: str) -> list[Restriction]:
    """The limits of `recommendations`; "" has none. Raises INVALID_VALUE [recommendations, text]."""
    if not text.strip():
        return []
    found = _parse("recommendations", text, "restrictions").iterchildren("restriction")
    return [_restriction(element, text) for element in found]


def _restriction(element: etree._Element, text: str) -> Restriction:
    try:
        low, high = (int(v) if (v := element.get(bound)) is not None else None for bound in ("min", "max"))
    except ValueError as error:
        raise ApiError("INVALID_VALUE", "recommendations", text) from error
    subject = element.get("field") or element.get("property") or ""
    return Restriction(subject=subject, minimum=low, maximum=high, value=element.get("value"))
