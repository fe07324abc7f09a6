"""What an import writes: which rows stand for the document's objects, and which are new.

A pure decision over rows, made and written in one transaction: an import that fails has done nothing. References that
mean nothing here are null.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from services.api.decisions import memory, vbd_devices, vm_records, vtpms
from services.api.decisions.device_metrics import with_metrics
from services.api.decisions.fresh import Fresh, ref_of
from services.api.decisions.rows import NULL, Record, Rows, existing, is_null
from services.api.decisions.vbd_records import ATTACHABLE_TYPES
from services.api.decisions.vif_records import assign_mac
from services.api.decisions.vm_removal import removed
from services.api.metadata.ova import FORMAT, Document, Object
from shared.contracts.db import Change, Create, Row, Update
from shared.datamodel import model
from shared.datamodel.types import STRING, MapType, RefType, SetType, Type
from shared.datamodel.values import from_text, to_text
from shared.errors import ApiError

EPOCH: Final = vm_records.EPOCH

VM_FIELDS: Final = (
    *(name for name in vm_records.COPIED if name not in ("affinity", "memory_overhead")),
    "name_label",
    "other_config",
    "is_a_snapshot",
    "snapshot_time",
    "snapshot_info",
    "snapshot_metadata",
    "transportable_snapshot_id",
    "is_vmss_snapshot",
    "blocked_operations",
    "start_delay",
    "shutdown_delay",
    "order",
)
"""Fields of a VM that are taken over as they are."""

METRICS_FIELDS: Final = (
    "memory_actual",
    "VCPUs_number",
    "VCPUs_params",
    "start_time",
    "install_time",
    "other_config",
    "hvm",
    "nested_virt",
    "nomigrate",
)

BRIDGES: Final = "xapi{}"
LEAST_MTU, USUAL_MTU, LARGEST_MTU = 68, 1500, 65535


@dataclass(frozen=True, slots=True)
class Options:
    """`restore`: uuids and MAC addresses stay. `force`: what is missing is left out, what is newer is replaced.

    `disks`: uuid of a disk in the document to the disk here that stands for it (uuid or reference).
    """

    restore: bool = False
    force: bool = False
    disks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """`vms`: references of the imported VMs; of snapshots only if there is nothing else."""

    changes: list[Change]
    vms: list[str]
    new: list[Row]
    """The fields of the VMs that are made, for whoever checks what a caller may write."""
    replaced: list[str]
    """VMs that go."""


def check_version(document: Document, ours: tuple[int, int]) -> None:
    """Raises IMPORT_INCOMPATIBLE_VERSION for what a newer toolstack wrote."""
    if document.version.xapi > ours or document.version.format > FORMAT:
        raise ApiError("IMPORT_INCOMPATIBLE_VERSION")


def planned(rows: Rows, document: Document, options: Options, fresh: Fresh) -> Plan:
    """Raises the errors of imports, such as VDI_LOCATION_MISSING, DUPLICATE_MAC_SEED, IMPORT_ERROR."""
    work = _Import(rows, document, options, fresh)
    for cls, handle in work.order():
        for one in document.of(cls):
            handle(one)
    work.settle()
    return Plan(work.changes, work.vms(), work.new_vms, sorted(work.gone))


class _Here:
    """What there is, by what documents name it."""

    def __init__(self, rows: Rows) -> None:
        self.uuids = {cls: {row["uuid"]: ref for ref, row in rows.rows(cls).items()} for cls in _BY_UUID}
        vdis, vms, networks = rows.rows("VDI"), rows.rows("VM"), rows.rows("network")
        libraries = {ref for ref, sr in rows.rows("SR").items() if sr["content_type"] == "iso"}
        self.isos = {vdi["location"]: ref for ref, vdi in vdis.items() if vdi["SR"] in libraries}
        self.units = {unit: ref for ref, vdi in vdis.items() if (unit := vdi["sm_config"].get("SCSIid"))}
        self.places = {(vdi["SR"], vdi["location"]): ref for ref, vdi in vdis.items()}
        self.templates = {vm["name_label"]: ref for ref, vm in vms.items() if _is_default_template(vm)}
        self.networks = {row["name_label"]: ref for ref, row in networks.items()}
        self.bridges = {row["bridge"]: ref for ref, row in networks.items()}
        self.seeds: dict[str, list[str]] = {}
        """MAC seed to VMs that have it; templates and snapshots use none."""
        for ref, vm in vms.items():
            if not vm["is_a_template"]:
                self.seeds.setdefault(vm["other_config"].get("mac_seed", ""), []).append(ref)

    def free_bridge(self) -> str:
        return next(name for n in range(len(self.bridges) + 1) if (name := BRIDGES.format(n)) not in self.bridges)


class _Import:
    """One import being planned. `table`: `Ref:<n>` to the reference here, NULL for what is left out."""

    def __init__(self, rows: Rows, document: Document, options: Options, fresh: Fresh) -> None:
        self._rows = rows
        self._objects = {one.id: one for one in document.objects}
        self._document = document
        self._options = options
        self._fresh = fresh
        self._table: dict[str, str] = {}
        self._seeds: dict[str, str] = {}
        self._made: dict[str, Row] = {}
        self._here = _Here(rows)
        self.gone: set[str] = set()
        self._devices: set[tuple[str, object]] = set()
        self._adopted: list[Update] = []
        self.changes: list[Change] = []
        self.new_vms: list[Row] = []

    def order(self) -> list[tuple[str, Callable[[Object], None]]]:
        return [
            ("host", self._known),
            ("SR", self._known),
            ("VDI", self._vdi),
            ("VM", self._vm),
            ("network", self._network),
            ("GPU_group", self._gpu_group),
            ("VGPU_type", self._vgpu_type),
            ("PVS_site", self._pvs_site),
            ("VBD", self._vbd),
            ("VIF", self._vif),
            ("VGPU", self._vgpu),
            ("PVS_proxy", self._pvs_proxy),
            ("VTPM", self._vtpm),
        ]

    def vms(self) -> list[str]:
        every = [(self._table[one.id], one.fields.get("is_a_snapshot", False)) for one in self._document.of("VM")]
        known = [(ref, snapshot) for ref, snapshot in every if not is_null(ref)]
        return [ref for ref, snapshot in known if not snapshot] or [ref for ref, _ in known]

    def _ref(self, id_: object) -> str:
        """What an id of the document stands for. Raises IMPORT_ERROR_FAILED_TO_FIND_OBJECT [id]."""
        if not isinstance(id_, str) or is_null(id_):
            return NULL
        if id_ not in self._table:
            raise ApiError("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", id_)
        return self._table[id_]

    def _object(self, id_: object, cls: str) -> Object | None:
        found = self._objects.get(id_) if isinstance(id_, str) else None
        return found if found is not None and found.cls == cls else None

    def _known(self, one: Object) -> None:
        """It is the one here with its uuid, or none."""
        self._table[one.id] = self._here.uuids[one.cls].get(one.fields.get("uuid", ""), NULL)

    # ---- disks

    def _vdi(self, one: Object) -> None:
        sr = self._object(one.fields.get("SR"), "SR")
        removable = sr is not None and sr.fields.get("content_type") == "iso"
        found = self._iso(one) if removable else self._disk(one)
        if found is None and not removable and not self._options.force:
            here = self._table.get(sr.id, NULL) if sr is not None else NULL
            if is_null(here):
                raise ApiError("VDI_CONTENT_ID_MISSING")
            raise ApiError("VDI_LOCATION_MISSING", here, one.fields.get("location", ""))
        self._table[one.id] = found or NULL

    def _iso(self, one: Object) -> str | None:
        """A CD is one of the same name in any library."""
        return self._here.isos.get(one.fields.get("location", ""))

    def _disk(self, one: Object) -> str | None:
        vdi, vdis = one.fields, self._rows.rows("VDI")
        chosen = self._options.disks.get(vdi.get("uuid", ""))
        if chosen is not None:
            ref = chosen if chosen in vdis else self._here.uuids["VDI"].get(chosen)
            if ref is None:
                raise ApiError("UUID_INVALID", "VDI", chosen)
            return ref
        unit = vdi.get("sm_config", {}).get("SCSIid", "")
        place = (self._table.get(vdi.get("SR", NULL), NULL), vdi.get("location", ""))
        moved: str = vdi.get("other_config", {}).get("maps_to", "")
        return self._here.units.get(unit) or self._here.places.get(place) or (moved if moved in vdis else None)

    # ---- VMs

    def _vm(self, one: Object) -> None:
        vm = one.fields
        template = self._same_default_template(vm)
        if template is not None:
            self._table[one.id] = template
            return
        if vm.get("is_control_domain", False):
            # Control domains belong to their hosts and are there already.
            self._table[one.id] = self._here.uuids["VM"].get(vm.get("uuid", ""), NULL)
            return
        uuid, ref = self._fresh(), ref_of(self._fresh())
        if self._options.restore:
            uuid = _uuid(vm.get("uuid", ""))
            self._make_room(vm, uuid, ref)
        suspended = self._table.get(vm.get("suspend_VDI", NULL), NULL)
        fields = self._vm_fields(vm, uuid, suspended)
        metrics_uuid = self._fresh()
        fields["metrics"] = ref_of(metrics_uuid)
        self._metrics(vm, metrics_uuid, fields["domain_type"] if not is_null(suspended) else "unspecified")
        fields["guest_metrics"] = self._guest_metrics(vm)
        self._table[one.id] = ref
        self._made[ref] = fields
        self.new_vms.append(fields)
        self.changes.append(Create(cls="VM", ref=ref, fields=fields))

    def _same_default_template(self, vm: Record) -> str | None:
        """A template of the toolstack's own is the same in all pools."""
        return self._here.templates.get(vm.get("name_label", "")) if _is_default_template(vm) else None

    def _vm_fields(self, vm: Record, uuid: str, suspended: str) -> Row:
        restore = self._options.restore
        config = dict(vm.get("other_config", {}))
        if not restore:
            seed = config.get("mac_seed", "")
            config["mac_seed"] = self._seeds.setdefault(seed or uuid, self._fresh())
        if not self._options.force:
            config.pop("default_template", None)
        fields: Row = {
            **{name: vm[name] for name in VM_FIELDS if name in vm},
            "uuid": uuid,
            "other_config": config,
            "power_state": "Halted" if is_null(suspended) else "Suspended",
            "suspend_VDI": suspended,
            "affinity": self._table.get(vm.get("affinity", NULL), NULL),
            "is_default_template": bool(vm.get("is_default_template", False)) and self._options.force,
            "has_vendor_device": vm.get("has_vendor_device", False),
            "version": int(vm.get("version", 0)) + 1 if restore else 0,
            "generation_id": self._generation_id(vm),
            "snapshot_metadata": _without_references(vm.get("snapshot_metadata", "")),
            "ha_always_run": False,
            "resident_on": NULL,
            "scheduled_to_be_resident_on": NULL,
            "domid": -1,
        }
        if "parent" not in vm and "memory_static_max" in vm:
            # Exports so old that they know no parents have dynamic limits that nothing kept to.
            fields |= {"memory_dynamic_max": vm["memory_static_max"], "memory_dynamic_min": vm["memory_static_max"]}
        if fields.get("domain_type", "unspecified") == "unspecified":
            fields["domain_type"] = vm_records.default_domain_type(vm.get("HVM_boot_policy", ""))
        needed = ("memory_static_max", "VCPUs_max", "HVM_shadow_multiplier")
        if all(name in fields for name in needed):
            fields["memory_overhead"] = memory.overhead({"platform": {}, **fields})
        return fields

    def _generation_id(self, vm: Record) -> str:
        known: str = vm.get("generation_id", "")
        return known if vm.get("is_a_template", False) else vm_records.fresh_generation_id(known, self._fresh)

    def _make_room(self, vm: Record, uuid: str, ref: str) -> None:
        """The VM of that uuid goes, its snapshots become those of the new one (`ref`).

        Raises VM_BAD_POWER_STATE, VM_TO_IMPORT_IS_NOT_NEWER_VERSION, DUPLICATE_MAC_SEED.
        """
        there = self._here.uuids["VM"].get(uuid)
        self._check_seed(vm, uuid, there)
        if there is None:
            return
        row = existing(self._rows, "VM", there)
        if row["power_state"] != "Halted":
            raise ApiError("VM_BAD_POWER_STATE", there, "Halted", row["power_state"])
        if not self._options.force and int(vm.get("version", 0)) <= row["version"]:
            raise ApiError("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", there, row["version"], vm.get("version", 0))
        self.gone.add(there)
        self.changes += removed(self._rows, there)
        self._adopted += [Update(cls="VM", ref=snapshot, fields={"snapshot_of": ref}) for snapshot in row["snapshots"]]

    def _check_seed(self, vm: Record, uuid: str, there: str | None) -> None:
        """Two VMs with one seed would get the same addresses. Snapshots and templates may share their VM's."""
        seed = vm.get("other_config", {}).get("mac_seed", "")
        if not seed or vm.get("is_a_snapshot", False) or vm.get("is_a_template", False):
            return
        for other in self._here.seeds.get(seed, ()):
            row = existing(self._rows, "VM", other)
            if other != there and row["uuid"] != uuid and (there is None or row["snapshot_of"] != there):
                raise ApiError("DUPLICATE_MAC_SEED", seed)

    def _metrics(self, vm: Record, uuid: str, domain_type: str) -> None:
        known = self._object(vm.get("metrics"), "VM_metrics")
        like = known.fields if known is not None else {}
        fields: Row = {
            "start_time": EPOCH,
            "install_time": EPOCH,
            "last_updated": EPOCH,
            **{name: like[name] for name in METRICS_FIELDS if name in like},
            "uuid": uuid,
            "current_domain_type": domain_type,
        }
        self.changes.append(Create(cls="VM_metrics", ref=ref_of(uuid), fields=fields))

    def _guest_metrics(self, vm: Record) -> str:
        known = self._object(vm.get("guest_metrics"), "VM_guest_metrics")
        if known is None:
            return NULL
        uuid = self._fresh()
        kept = {name: known.fields[name] for name in vm_records.GUEST_METRICS_COPIED if name in known.fields}
        self.changes.append(Create(cls="VM_guest_metrics", ref=ref_of(uuid), fields={**kept, "uuid": uuid}))
        return ref_of(uuid)

    def settle(self) -> None:
        """Families stay together: what is a snapshot or a child of whom. VMs that have gone are left alone."""
        for one in self._document.of("VM"):
            made = self._made.get(self._table[one.id])
            if made is not None:
                for name in ("snapshot_of", "parent"):
                    made[name] = self._table.get(one.fields.get(name, NULL), NULL)
        every = [*self.changes, *self._adopted]
        self.changes = [one for one in every if not (isinstance(one, Update) and one.ref in self.gone)]

    # ---- what devices use

    def _network(self, one: Object) -> None:
        """By name, then by bridge; else a new one."""
        here, name, bridge = self._here, one.fields.get("name_label", ""), one.fields.get("bridge", "")
        found = (here.networks.get(name) if name else None) or (here.bridges.get(bridge) if bridge else None)
        if found is not None:
            self._table[one.id] = found
            return
        uuid = self._fresh()
        fields: Row = {
            **{name: one.fields[name] for name in _NETWORK_FIELDS if name in one.fields},
            "uuid": uuid,
            "bridge": here.free_bridge(),
        }
        if not LEAST_MTU <= fields.get("MTU", 0) <= LARGEST_MTU:
            fields["MTU"] = USUAL_MTU
        self._table[one.id] = here.bridges[fields["bridge"]] = ref_of(uuid)
        here.networks.setdefault(name, ref_of(uuid))
        self.changes.append(Create(cls="network", ref=ref_of(uuid), fields=fields))

    def _gpu_group(self, one: Object) -> None:
        self._table[one.id] = self._alike(one, ("GPU_types",))

    def _vgpu_type(self, one: Object) -> None:
        self._table[one.id] = self._alike(one, ("identifier",))

    def _pvs_site(self, one: Object) -> None:
        self._table[one.id] = self._alike(one, ("PVS_uuid",))

    def _alike(self, one: Object, names: tuple[str, ...]) -> str:
        for ref, row in self._rows.rows(one.cls).items():
            if all(row[name] == one.fields.get(name) for name in names):
                return ref
        return NULL

    # ---- devices

    def _owner(self, one: Object) -> tuple[str, Row] | None:
        """The VM that gets it; None for a VM that was there before."""
        ref = self._ref(one.fields.get("VM"))
        return (ref, self._made[ref]) if ref in self._made else None

    def _vbd(self, one: Object) -> None:
        owner = self._owner(one)
        if owner is None:
            return
        ref, vm = owner
        vbd, vdi = one.fields, self._ref(one.fields.get("VDI"))
        empty = bool(vbd.get("empty", False)) or is_null(vdi)
        suspended = vm["power_state"] == "Suspended"
        attached = suspended and bool(vbd.get("currently_attached", False))
        if empty and vbd.get("type") != "CD":
            if attached:
                raise ApiError("IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND")
            return
        if not empty and existing(self._rows, "VDI", vdi)["type"] not in ATTACHABLE_TYPES:
            raise ApiError("VDI_INCOMPATIBLE_TYPE", vdi, existing(self._rows, "VDI", vdi)["type"])
        where = vbd_devices.position(str(vbd.get("userdevice", "")))
        self._take(ref, where, vbd["userdevice"])
        fields: Row = {
            **{name: vbd[name] for name in (*vm_records.VBD_COPIED, "other_config") if name in vbd},
            "uuid": self._fresh(),
            "VM": ref,
            "VDI": NULL if empty else vdi,
            "empty": empty,
            "device": vbd_devices.linux_device(where) if attached else "",
            "currently_attached": attached,
        }
        if vbd.get("type") == "CD":
            fields["mode"] = "RO"
        made = Create(cls="VBD", ref=ref_of(self._fresh()), fields=fields)
        self.changes += with_metrics("VBD", made, self._fresh(), EPOCH)

    def _take(self, vm: str, device: object, name: str) -> None:
        """Raises DEVICE_ALREADY_EXISTS [device]."""
        if (vm, device) in self._devices:
            raise ApiError("DEVICE_ALREADY_EXISTS", name)
        self._devices.add((vm, device))

    def _vif(self, one: Object) -> None:
        owner = self._owner(one)
        if owner is None:
            return
        ref, vm = owner
        vif, restore = one.fields, self._options.restore
        network = self._ref(vif.get("network"))
        if is_null(network):
            raise ApiError("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", vif.get("network", NULL))
        device = str(vif.get("device", "0"))
        if not (device.isascii() and device.isdigit() and len(device) < 5):
            raise ApiError("INVALID_DEVICE", device)
        self._take(ref, int(device), device)
        mac, generated = assign_mac(vm, device, vif.get("MAC", "") if restore else "")
        fields: Row = {
            **{name: vif[name] for name in vm_records.VIF_COPIED if name in vif},
            "uuid": self._fresh(),
            "VM": ref,
            "network": network,
            "MAC": mac,
            "MAC_autogenerated": generated or (restore and bool(vif.get("MAC_autogenerated", False))),
            "currently_attached": vm["power_state"] == "Suspended" and bool(vif.get("currently_attached", False)),
        }
        made_ref = ref_of(self._fresh())
        self._table[one.id] = made_ref
        self.changes += with_metrics("VIF", Create(cls="VIF", ref=made_ref, fields=fields), self._fresh(), EPOCH)

    def _vgpu(self, one: Object) -> None:
        owner = self._owner(one)
        if owner is None:
            return
        vgpu = one.fields
        group, type_ = self._ref(vgpu.get("GPU_group")), self._ref(vgpu.get("type"))
        if is_null(group):
            if self._options.force:
                return
            raise ApiError("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", vgpu.get("GPU_group", NULL))
        fields: Row = {
            **{name: vgpu[name] for name in vm_records.VGPU_COPIED if name in vgpu},
            "uuid": self._fresh(),
            "VM": owner[0],
            "GPU_group": group,
            "type": type_,
        }
        self.changes.append(Create(cls="VGPU", ref=ref_of(self._fresh()), fields=fields))

    def _pvs_proxy(self, one: Object) -> None:
        site, vif = self._ref(one.fields.get("site")), self._table.get(one.fields.get("VIF", NULL), NULL)
        if is_null(site) or is_null(vif):
            if self._options.force or is_null(vif):
                return
            raise ApiError("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", one.fields.get("site", NULL))
        fields: Row = {"uuid": self._fresh(), "site": site, "VIF": vif}
        self.changes.append(Create(cls="PVS_proxy", ref=ref_of(self._fresh()), fields=fields))

    def _vtpm(self, one: Object) -> None:
        owner = self._owner(one)
        if owner is not None:
            unique, contents = bool(one.fields.get("is_unique", False)), str(one.fields.get("content", ""))
            self.changes += vtpms.created(owner[0], self._fresh, is_unique=unique, contents=contents)


def _without_references(metadata: str) -> str:
    """What a snapshot is reverted to names nothing of the pool it comes from. Raises INTERNAL_ERROR."""
    if not metadata:
        return ""
    texts: dict[str, str] = from_text(_TEXTS, metadata)
    return to_text(_TEXTS, {column: _EMPTY.get(column, text) for column, text in texts.items()})


def _uuid(text: str) -> str:
    """Raises IMPORT_ERROR: files are named by uuids."""
    try:
        return str(uuids.UUID(text))
    except ValueError:
        raise ApiError("IMPORT_ERROR", f"{text!r} is not a uuid") from None


def _is_default_template(vm: Record) -> bool:
    by_key = vm.get("other_config", {}).get("default_template") == "true"
    return bool(vm.get("is_a_template", False)) and (bool(vm.get("is_default_template", False)) or by_key)


def _refers(of: Type) -> bool:
    """Whether values of that type hold references."""
    match of:
        case SetType():
            return _refers(of.of)
        case MapType():
            return _refers(of.key) or _refers(of.value)
    return isinstance(of, RefType)


_TEXTS: Final = MapType(STRING, STRING)
_EMPTY: Final = {
    declared.column: to_text(declared.type, declared.type.empty())
    for declared in model.classes["VM"].fields.values()
    if _refers(declared.type)
}
"""Columns of a VM with references, to the text of none."""
_BY_UUID: Final = ("host", "SR", "VDI", "VM")
_NETWORK_FIELDS: Final = ("name_label", "name_description", "MTU", "other_config", "tags", "managed")
