"""What LVM is told, and what its reports say. No I/O.

An SR is a volume group, a disk a logical volume in it. What LVM does not know of a disk is in tags: a record, in
pieces as a tag holds 1024 characters at most, and one tag for each host that has the disk activated.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from services.storage.plugins.interface import Domain
from shared.bus.contract import Record

GROUP_PREFIX = "VG_XenStorage-"
VOLUME_PREFIX = "LV-"
POOL = "thin-pool"
"""Thin volumes share its space. A little of the group is kept free, for the pool's metadata to grow."""

POOL_SHARE = "95%FREE"
_RECORD = "xapi.record"
_HOLDER = "xapi.holder"
_PIECE = 900
_MACHINE = "xapi.machine"
_METADATA = "16m"
"""Room for the text of a group on each device: with tags it is up to 2 KiB a disk, and the usual 1 MiB is soon full."""
_FLAGS = {True: "rw", False: "ro"}
_VOLUME_FIELDS = "lv_name,lv_size,lv_attr,lv_tags,data_percent,metadata_percent,pool_lv"
_GROUP_FIELDS = "vg_name,vg_size,vg_free,vg_extent_size,vg_tags"
_REPORT = ("--reportformat", "json", "--units", "b", "--nosuffix")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Label(Record, frozen=True):
    """What is kept with a disk. `origin`: what it was made from. `draft`: it is in the making, and nobody's disk.

    `replaces`: a draft that is complete, and becomes the volume of that name. `unclear`: bytes from which on it holds
    what was there before, while it is being made larger; 0: nowhere.
    """

    uuid: str
    name: str = ""
    description: str = ""
    keys: dict[str, str] = {}
    origin: str = ""
    draft: bool = False
    replaces: str = ""
    unclear: int = 0
    sharable: bool = False


class Holder(Record, frozen=True):
    """A host that has a disk activated."""

    host: str
    dp: str
    writable: bool


class LogicalVolume(Record, frozen=True):
    """`size`: bytes. `used`: of a thin one or a pool, as a share of its size; None if LVM does not say, as of one that
    is not active. `used_metadata`: of a pool, likewise.
    """

    name: str
    size: int
    writable: bool
    tags: frozenset[str]
    thin: bool
    pool: bool
    used: float | None
    used_metadata: float | None = None

    @property
    def label(self) -> Label | None:
        """None: not a disk of ours."""
        return parse_label(self.tags)

    @property
    def holders(self) -> list[Holder]:
        found = (parse_holder(tag) for tag in sorted(self.tags))
        return [holder for holder in found if holder is not None]


class VolumeGroup(Record, frozen=True):
    """Bytes. `machines`: those that it belongs to; none for one of an earlier version."""

    name: str
    size: int
    free: int
    extent: int
    machines: frozenset[str] = frozenset()


def group_name(sr: str) -> str:
    return GROUP_PREFIX + sr


def sr_of(group: str) -> str:
    """The SR's uuid, "" for somebody else's group."""
    uuid = group.removeprefix(GROUP_PREFIX)
    return uuid if group.startswith(GROUP_PREFIX) and _UUID.fullmatch(uuid) else ""


def volume_name(key: str) -> str:
    """ "" for what cannot be a key: it comes from outside and becomes an argument."""
    return VOLUME_PREFIX + key if _UUID.fullmatch(key) else ""


# -- tags --------------------------------------------------------------------------------------------------------------


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """Raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def label_tags(label: Label) -> frozenset[str]:
    text = _encode(msgspec.json.encode(label))
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    return frozenset(f"{_RECORD}.{number}.{piece}" for number, piece in enumerate(pieces))


def parse_label(tags: Iterable[str]) -> Label | None:
    pieces: dict[int, str] = {}
    for tag in tags:
        number, _, piece = tag.removeprefix(f"{_RECORD}.").partition(".")
        if tag.startswith(f"{_RECORD}.") and number.isdecimal():
            pieces[int(number)] = piece
    try:
        return msgspec.json.decode(_decode("".join(pieces[number] for number in sorted(pieces))), type=Label)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None


def holder_tag(holder: Holder) -> str:
    return f"{_HOLDER}.{_FLAGS[holder.writable]}.{_encode(holder.host.encode())}.{_encode(holder.dp.encode())}"


def parse_holder(tag: str) -> Holder | None:
    """One that cannot be read counts, as nobody's, so that it blocks until somebody looks."""
    if not tag.startswith(f"{_HOLDER}."):
        return None
    flag, _, rest = tag.removeprefix(f"{_HOLDER}.").partition(".")
    host, _, dp = rest.partition(".")
    try:
        return Holder(host=_decode(host).decode(), dp=_decode(dp).decode(), writable=flag != "ro")
    except ValueError:
        return Holder(host="", dp=f"an unreadable tag, {tag}", writable=True)


def machine_tag(machine: str) -> str:
    """`machine`: as /etc/machine-id has it."""
    return f"{_MACHINE}.{machine}"


def foreign(holders: Sequence[Holder], domain: Domain, writable: bool) -> Holder | None:
    """Who of another host keeps this one from activating the disk."""
    return next((each for each in holders if each.host != domain.host and (each.writable or writable)), None)


# -- commands ----------------------------------------------------------------------------------------------------------


def list_volumes(group: str) -> list[str]:
    return ["lvm", "lvs", *_REPORT, "--options", _VOLUME_FIELDS, group]


def list_groups(*groups: str) -> list[str]:
    return ["lvm", "vgs", *_REPORT, "--options", _GROUP_FIELDS, *groups]


def list_devices(devices: Sequence[str]) -> list[str]:
    return ["lvm", "pvs", *_REPORT, "--options", "pv_name,vg_name", *devices]


def create_group(group: str, devices: Sequence[str], tags: Iterable[str]) -> list[str]:
    """Nothing in it is activated by the system, which would at each boot: who needs a volume activates it."""
    kept = ["--metadatasize", _METADATA, "--setautoactivation", "n"]
    return ["lvm", "vgcreate", "--yes", *kept, *_added(tags), group, *devices]


def tag_group(group: str, tag: str) -> list[str]:
    return ["lvm", "vgchange", "--yes", "--addtag", tag, group]


def remove_group(group: str) -> list[str]:
    return ["lvm", "vgremove", "--yes", "--force", group]


def free_devices(devices: Sequence[str]) -> list[str]:
    return ["lvm", "pvremove", "--yes", *devices]


def create_pool(group: str) -> list[str]:
    return ["lvm", "lvcreate", "--yes", "--type", "thin-pool", "--extents", POOL_SHARE, "--name", POOL, group]


def fail_when_full(group: str) -> list[str]:
    """A write that finds no room fails at once, and its VM is paused; otherwise it hangs for a minute first."""
    return ["lvm", "lvchange", "--yes", "--errorwhenfull", "y", f"{group}/{POOL}"]


def create_volume(group: str, name: str, size: int, tags: Iterable[str], thin: bool) -> list[str]:
    """It is not active afterwards. A thin one is empty; the other has whatever was there."""
    quiet = ["--wipesignatures", "n", "--activate", "n"]
    thick = ["--zero", "n", "--type", "linear", "--size"]
    kind = ["--type", "thin", "--thinpool", POOL, "--virtualsize"] if thin else thick
    return ["lvm", "lvcreate", "--yes", *quiet, *kind, f"{size}b", "--name", name, *_added(tags), group]


def branch_volume(group: str, source: str, name: str, tags: Iterable[str], writable: bool) -> list[str]:
    """Of a thin volume, which may be in use. It can be activated as any other."""
    permission = "rw" if writable else "r"
    flags = ["--permission", permission, "--setactivationskip", "n", "--activate", "n"]
    return ["lvm", "lvcreate", "--yes", "--snapshot", *flags, "--name", name, *_added(tags), f"{group}/{source}"]


def change_tags(group: str, name: str, before: frozenset[str], after: frozenset[str]) -> list[str]:
    """All at once: LVM writes its metadata as a whole."""
    removed = [word for tag in sorted(before - after) for word in ("--deltag", tag)]
    return ["lvm", "lvchange", "--yes", *removed, *_added(after - before), f"{group}/{name}"]


def activate_volume(group: str, name: str) -> list[str]:
    return ["lvm", "lvchange", "--yes", "--activate", "y", "--ignoreactivationskip", f"{group}/{name}"]


def deactivate_volume(group: str, name: str) -> list[str]:
    return ["lvm", "lvchange", "--yes", "--activate", "n", f"{group}/{name}"]


def resize_volume(group: str, name: str, size: int) -> list[str]:
    return ["lvm", "lvextend", "--yes", "--size", f"{size}b", f"{group}/{name}"]


def rename_volume(group: str, name: str, to: str) -> list[str]:
    return ["lvm", "lvrename", "--yes", group, name, to]


def remove_volume(group: str, name: str) -> list[str]:
    return ["lvm", "lvremove", "--yes", "--force", f"{group}/{name}"]


def _added(tags: Iterable[str]) -> list[str]:
    return [word for tag in sorted(tags) for word in ("--addtag", tag)]


# -- reports -----------------------------------------------------------------------------------------------------------


def parse_volumes(text: str) -> list[LogicalVolume]:
    """Of `list_volumes`. Raises ValueError."""
    return [_volume(row) for row in _rows(text, "lv")]


def parse_groups(text: str) -> list[VolumeGroup]:
    """Of `list_groups`. Raises ValueError."""
    return [
        VolumeGroup(
            name=row["vg_name"],
            size=int(row["vg_size"]),
            free=int(row["vg_free"]),
            extent=int(row["vg_extent_size"]),
            machines=frozenset(
                tag.removeprefix(f"{_MACHINE}.")
                for tag in row.get("vg_tags", "").split(",")
                if tag.startswith(f"{_MACHINE}.")
            ),
        )
        for row in _rows(text, "vg")
    ]


def parse_devices(text: str) -> dict[str, str]:
    """Of `list_devices`: device to its group, "" for one without. Raises ValueError."""
    return {row["pv_name"]: row["vg_name"] for row in _rows(text, "pv")}


def _volume(row: dict[str, str]) -> LogicalVolume:
    """lvs(8): the first character of lv_attr is the type, the second the permission."""
    kind, permission = row["lv_attr"][0], row["lv_attr"][1]
    used, metadata = row.get("data_percent", ""), row.get("metadata_percent", "")
    return LogicalVolume(
        name=row["lv_name"],
        size=int(row["lv_size"]),
        writable=permission == "w",
        tags=frozenset(filter(None, row["lv_tags"].split(","))),
        thin=kind == "V",
        pool=kind == "t",
        used=float(used) / 100 if used else None,
        used_metadata=float(metadata) / 100 if metadata else None,
    )


def _rows(text: str, kind: str) -> list[dict[str, str]]:
    try:
        report: Any = msgspec.json.decode(text.encode())
        return [row for part in report["report"] for row in part.get(kind, [])]
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report of LVM: {text[:200]!r}") from error
