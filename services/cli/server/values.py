"""Values as text and back, by the data model's types (display words and number formats of `xe`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.cli.server.failures import CommandError
from services.cli.server.objects import Objects
from shared.datamodel.types import BOOL, FLOAT, INT, NULL_REF, EnumType, MapType, RefType, SetType, Type

MISSING: Final = "<not in database>"

Value = str | Sequence[str] | Mapping[str, str]
"""A field as shown: one text, the members of a set, or the pairs of a map."""

_OPERATIONS_OF = ("vdi", "pbd")
_SHOWN: Mapping[str, Mapping[str, str]] = {
    "vm_power_state": {"Halted": "halted", "Paused": "paused", "Running": "running", "Suspended": "suspended"},
    "on_normal_exit": {"destroy": "Destroy", "restart": "Restart"},
    "on_softreboot_behavior": {
        "soft_reboot": "Soft reboot",
        "destroy": "Destroy",
        "restart": "Restart",
        "preserve": "Preserve",
    },
    "on_crash_behaviour": {
        "destroy": "Destroy",
        "coredump_and_destroy": "Core dump and destroy",
        "restart": "Restart",
        "coredump_and_restart": "Core dump and restart",
        "preserve": "Preserve",
        "rename_restart": "Rename restart",
    },
    "vm_operations": {"assert_operation_valid": "assertoperationvalid", "data_source_op": "data_sources_op"},
    "host_allowed_operations": {"vm_start": "VM.start", "vm_resume": "VM.resume", "vm_migrate": "VM.migrate"},
    "vdi_type": {
        "system": "System",
        "user": "User",
        "ephemeral": "Ephemeral",
        "suspend": "Suspend",
        "crashdump": "Crashdump",
        "ha_statefile": "HA statefile",
        "metadata": "Metadata",
        "redo_log": "Redo log",
        "rrd": "rrd",
        "pvs_cache": "PVS cache",
        "cbt_metadata": "CBT metadata",
    },
    "console_protocol": {"vt100": "VT100", "rfb": "RFB", "rdp": "RDP"},
    "task_allowed_operations": {"cancel": "Cancel", "destroy": "Destroy"},
    "allocation_algorithm": {"breadth_first": "breadth-first", "depth_first": "depth-first"},
    "domain_type": {"pv_in_pvh": "pv-in-pvh"},
    "tristate_type": {"yes": "true", "no": "false"},
    "placement_policy": {"anti_affinity": "anti-affinity"},
}
"""Words that are shown in another spelling than the data model's."""

_INPUT: Mapping[str, Mapping[str, str]] = {
    "allocation_algorithm": {"breadth-first": "breadth_first", "depth-first": "depth_first"},
    "domain_type": {"hvm": "hvm", "pv": "pv", "pv-in-pvh": "pv_in_pvh", "pvh": "pvh"},
    "placement_policy": {"normal": "normal", "anti-affinity": "anti_affinity"},
}
"""Words accepted, where that is not the data model's list."""


def word(enum: EnumType, value: str) -> str:
    """An enum's word as shown."""
    if enum.name == "storage_operations":
        owner, _, operation = value.partition("_")
        return f"{owner.upper()}.{operation}" if owner in _OPERATIONS_OF else value
    return _SHOWN.get(enum.name, {}).get(value, value)


async def shown(type: Type, value: Any, objects: Objects) -> Value:
    """A value of the JSON wire in its displayed form. References become uuids."""
    if isinstance(type, RefType):
        return await objects.uuid(type.cls, value) or MISSING
    if isinstance(type, EnumType):
        return word(type, value)
    if isinstance(type, SetType):
        return [flat(await shown(type.of, member, objects)) for member in value]
    if isinstance(type, MapType):
        return {
            flat(await shown(type.key, key, objects)): flat(await shown(type.value, item, objects))
            for key, item in value.items()
        }
    if type is BOOL:
        return "true" if value else "false"
    if type is FLOAT:
        return f"{float(value):.3f}"
    return str(value)


def flat(value: Value, joiner: str = "; ") -> str:
    """One text."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return joiner.join(f"{key}: {item}" for key, item in value.items())
    return joiner.join(value)


_SIZE = re.compile(r"(\d{1,30})\s*+([a-z]*)", re.IGNORECASE)
_UNITS: Mapping[str, int] = {
    unit: 1024**power
    for power, units in enumerate((("", "b", "bytes"), *((f"{u}", f"{u}b", f"{u}ib") for u in "kmgt")))
    for unit in units
}


def size(name: str, text: str) -> int:
    """Bytes: a decimal integer and an optional suffix, all binary (`4GiB`, `4 gb`, `4g`)."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise CommandError(
            f"Failed to parse field '{name}': expecting an integer (possibly with suffix KiB, MiB, GiB, TiB), "
            f"got '{text}'"
        )
    return int(match[1]) * unit


_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")


def boolean(name: str, text: str) -> bool:
    """A boolean argument, in any of the usual words."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    expected = ",".join(f"'{word}'" for word in (*_TRUE, *_FALSE))
    raise CommandError(f"Failed to parse parameter '{name}': Expected {expected} got {text}")


def integer(name: str, text: str) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise CommandError(f"Failed to parse parameter '{name}': expecting an integer")
    return int(text)


def number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CommandError(f"Failed to parse parameter '{name}': expecting a float") from None


def enum_value(enum: EnumType, text: str) -> str:
    """The data model's word for what the user wrote, in any case."""
    if enum.name == "bond_mode" and not text:
        return "balance-slb"
    accepted = _INPUT.get(enum.name) or {value: value for value in enum.values}
    for spelling, value in accepted.items():
        if spelling.lower() == text.lower():
            return value
    expected = ", ".join(f"'{spelling}'" for spelling in accepted)
    raise CommandError(f"Expected one of {expected}, got {text}")


async def parsed(type: Type, name: str, text: str, objects: Objects, *, field: bool = False) -> Any:
    """The value of the JSON wire. `field`: of a record's field, where booleans have two words only.

    References are given as uuids, an empty one is null; sets with commas. Raises `CommandError`, UUID_INVALID.
    """
    if isinstance(type, RefType):
        return await objects.by_uuid(type.cls, text) if text else NULL_REF
    if isinstance(type, SetType):
        members = [member for member in text.split(",") if member]
        return [await parsed(type.of, name, member, objects, field=field) for member in members]
    if isinstance(type, EnumType):
        return enum_value(type, text)
    if type is INT:
        return integer(name, text)
    if type is FLOAT:
        return number(name, text)
    if type is BOOL:
        if field and text not in ("true", "false"):
            raise CommandError(f"Failed to parse parameter '{name}': expecting a boolean (true or false)")
        return boolean(name, text)
    if isinstance(type, MapType):
        raise CommandError(f"Field '{name}' is a map or set. use the 'name:key=value' syntax.")
    return text
