"""VMs of older releases, their snapshots and templates."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from lxml import etree

from services.db.upgrade.rule import Surroundings
from shared.contracts.db import Change, Delete, Update
from shared.datamodel import model, values
from shared.errors import ApiError
from shared.store import NULL, Store
from shared.vm_defaults import DEVICE_MODELS, GENERIC_BIOS_STRINGS, overhead

log = logging.getLogger("db.upgrade")

DEVICE_MODEL: Final = "device-model"
FORMER_DEVICE_MODEL: Final = "qemu-trad"
PRESENT_DEVICE_MODEL: Final = DEVICE_MODELS["bios"]

PRIORITIES: Final = {
    "0": ("restart", 0),
    "1": ("restart", 1),
    "2": ("restart", 2),
    "3": ("restart", 3),
    "best-effort": ("best-effort", 0),
}
"""What was a number is a restart in that order; anything else is no restart."""


def _set(store: Store, wanted: Mapping[str, dict[str, Any]]) -> Iterator[Change]:
    for ref, fields in wanted.items():
        yield Update(cls="VM", ref=ref, fields=fields)


def domain_types(store: Store, _: Surroundings) -> Iterator[Change]:
    """What kind of domain a VM is was once told by its boot policy. One that is not halted is of that kind now."""
    for ref, vm in store.rows("VM").items():
        if vm["domain_type"] != "unspecified":
            continue
        kind = "pv" if _is_domain_zero(store, ref, vm) or not vm["HVM_boot_policy"] else "hvm"
        yield Update(cls="VM", ref=ref, fields={"domain_type": kind})
        if vm["power_state"] != "Halted" and store.find("VM_metrics", vm["metrics"]) is not None:
            yield Update(cls="VM_metrics", ref=vm["metrics"], fields={"current_domain_type": kind})


def _is_domain_zero(store: Store, ref: str, vm: Mapping[str, Any]) -> bool:
    host = store.row("host", vm["resident_on"])
    return bool(vm["is_control_domain"]) and host is not None and host["control_domain"] == ref


def memory_overheads(store: Store, _: Surroundings) -> Iterator[Change]:
    return _set(store, {ref: {"memory_overhead": overhead(vm)} for ref, vm in store.rows("VM").items()})


def bios_strings(store: Store, _: Surroundings) -> Iterator[Change]:
    return _set(store, {ref: {"bios_strings": dict(GENERIC_BIOS_STRINGS)} for ref in store.rows("VM")})


def snapshot_parents(store: Store, _: Surroundings) -> Iterator[Change]:
    """Each snapshot follows the one before it in time, and the VM the last of its own."""
    snapshots: dict[str, list[str]] = {}
    machines = store.rows("VM")
    for ref, vm in machines.items():
        if vm["snapshot_of"] in machines:
            snapshots.setdefault(vm["snapshot_of"], []).append(ref)
    for vm_ref, own in snapshots.items():
        line = [*sorted(own, key=lambda ref: str(machines[ref]["snapshot_time"])), vm_ref]
        for parent, child in pairwise(line):
            yield Update(cls="VM", ref=child, fields={"parent": parent})


def restart_priorities(store: Store, _: Surroundings) -> Iterator[Change]:
    for ref, vm in store.rows("VM").items():
        priority, order = PRIORITIES.get(vm["ha_restart_priority"], ("", 0))
        yield Update(cls="VM", ref=ref, fields={"ha_restart_priority": priority, "order": order})


def auto_poweron(store: Store, _: Surroundings) -> Iterator[Change]:
    """VMs that were to start with their host are restarted where that is possible."""
    for ref, vm in store.rows("VM").items():
        if vm["other_config"].get("auto_poweron") == "true" and not vm["ha_restart_priority"]:
            yield Update(cls="VM", ref=ref, fields={"ha_restart_priority": "best-effort"})


def protection_policies(store: Store, _: Surroundings) -> Iterator[Change]:
    for ref in store.rows("VMPP"):
        yield Delete(cls="VMPP", ref=ref)
    for ref, vm in store.rows("VM").items():
        if vm["protection_policy"] != NULL:
            yield Update(cls="VM", ref=ref, fields={"protection_policy": NULL})


def vendor_devices(store: Store, _: Surroundings) -> Iterator[Change]:
    return _set(store, {ref: {"has_vendor_device": False} for ref in store.rows("VM")})


def detected_drivers(store: Store, _: Surroundings) -> Iterator[Change]:
    for vm in store.rows("VM").values():
        if store.find("VM_guest_metrics", vm["guest_metrics"]) is not None:
            yield Update(cls="VM_guest_metrics", ref=vm["guest_metrics"], fields={"PV_drivers_detected": False})


def recommendations(store: Store, _: Surroundings) -> Iterator[Change]:
    """HVM guests with Linux may have whole GPUs, and no virtual ones."""
    for ref, vm in store.rows("VM").items():
        new = _with_gpus(vm["recommendations"])
        if new is not None:
            yield Update(cls="VM", ref=ref, fields={"recommendations": new})


def _with_gpus(text: str) -> str | None:
    """None where nothing is to be changed, or where the text is no XML: then it recommends nothing."""
    if "allow-gpu-passthrough" not in text:
        return None
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        tree = etree.fromstring(text.encode(), parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    former = [
        element
        for element in tree.iter("restriction")
        if (element.get("field"), element.get("value")) == ("allow-gpu-passthrough", "0")
    ]
    for element in former:
        element.set("value", "1")
        element.addnext(etree.Element("restriction", field="allow-vgpu", value="0"))
    return etree.tostring(tree, encoding="unicode") if former else None


def device_models(store: Store, _: Surroundings) -> Iterator[Change]:
    """Every HVM guest names a device model that there is; so does what a snapshot remembers of its VM."""
    for ref, vm in store.rows("VM").items():
        fields: dict[str, Any] = {}
        if not vm["is_a_template"]:
            fields["platform"] = _with_device_model(vm["domain_type"], vm["platform"])
        if vm["snapshot_metadata"]:
            fields["snapshot_metadata"] = _remembered(ref, vm["domain_type"], vm["snapshot_metadata"])
        if fields:
            yield Update(cls="VM", ref=ref, fields=fields)


def _with_device_model(domain_type: str, platform: Mapping[str, str]) -> dict[str, str]:
    present = platform.get(DEVICE_MODEL)
    if present == FORMER_DEVICE_MODEL or (present is None and domain_type == "hvm"):
        return {**platform, DEVICE_MODEL: PRESENT_DEVICE_MODEL}
    return dict(platform)


def _remembered(ref: str, domain_type: str, metadata: str) -> str:
    """`metadata`: a map of columns to their text. What is none stays as it is."""
    columns = model.classes["VM"].fields["platform"].type
    try:
        record = values.from_text(columns, metadata)
        if "platform" not in record:
            return metadata
        platform = _with_device_model(domain_type, values.from_text(columns, record["platform"]))
    except ApiError as error:
        log.warning("what snapshot %s remembers cannot be read, and stays: %s", ref, error)
        return metadata
    return values.to_text(columns, {**record, "platform": values.to_text(columns, platform)})


def secure_boot_states(store: Store, _: Surroundings) -> Iterator[Change]:
    """Guests with UEFI: their certificates count as present until somebody has looked at their variables."""
    for ref, vm in store.rows("VM").items():
        if vm["is_control_domain"] or vm["is_default_template"]:
            continue
        if vm["HVM_boot_params"].get("firmware") == "uefi":
            yield Update(cls="VM", ref=ref, fields={"secureboot_certificates_state": "ok"})
