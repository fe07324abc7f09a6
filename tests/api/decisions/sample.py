"""A small pool of rows to decide on: the real store, so defaults and both sides of relations are as in the product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.contracts.db import Create, Delta, RowCreated, RowDeleted, RowModified, Update
from shared.store import Store

GIB = 1 << 30
MIB = 1 << 20


class Sample:
    """References are the names given. `rows` is what decisions read."""

    def __init__(self) -> None:
        self.rows = Store()

    def _apply(self, change: RowCreated | RowModified | RowDeleted) -> None:
        at = self.rows.generation
        self.rows.apply(Delta(term=1, generation=at + 1, previous=at, changes=[change]))

    def add(self, cls: str, ref: str, **fields: Any) -> str:
        self._apply(RowCreated(cls=cls, ref=ref, fields={"uuid": f"uuid-{ref}", **fields}))
        return ref

    def set(self, cls: str, ref: str, **fields: Any) -> None:
        self._apply(RowModified(cls=cls, ref=ref, fields=fields))

    def drop(self, cls: str, ref: str) -> None:
        self._apply(RowDeleted(cls=cls, ref=ref))

    def make(self, changes: list[Any]) -> None:
        """What a decision said is to be written."""
        for change in changes:
            if isinstance(change, Create):
                self._apply(RowCreated(cls=change.cls, ref=change.ref, fields=change.fields))
            else:
                assert isinstance(change, Update)
                self._apply(RowModified(cls=change.cls, ref=change.ref, fields=change.fields))

    def row(self, cls: str, ref: str) -> Mapping[str, Any]:
        found = self.rows.row(cls, ref)
        assert found is not None
        return found

    # ---- the usual things

    def pool(self, **fields: Any) -> str:
        return self.add("pool", "pool", **{"coordinator_bias": False, **fields})

    def host(self, ref: str, memory: int = 8 * GIB, live: bool = True, **fields: Any) -> str:
        self.add("host_metrics", f"{ref}-metrics", memory_total=memory, live=live)
        usual: dict[str, Any] = {
            "name_label": ref,
            "metrics": f"{ref}-metrics",
            "enabled": True,
            "capabilities": ["hvm-3.0-x86_64"],
            "cpu_info": {"cpu_count": "4"},
            "virtual_hardware_platform_versions": [0, 1, 2],
        }
        return self.add("host", ref, **{**usual, **fields})

    def vm(self, ref: str = "vm", state: str = "Halted", kind: str = "hvm", **fields: Any) -> str:
        live = state in ("Running", "Paused")
        self.add("VM_metrics", f"{ref}-metrics", current_domain_type=kind if live else "unspecified")
        usual: dict[str, Any] = {
            "name_label": ref,
            "power_state": state,
            "domain_type": kind,
            "metrics": f"{ref}-metrics",
            "memory_static_min": 128 * MIB,
            "memory_dynamic_min": 256 * MIB,
            "memory_dynamic_max": 256 * MIB,
            "memory_static_max": 256 * MIB,
            "VCPUs_max": 1,
            "VCPUs_at_startup": 1,
            "domid": 7 if live else -1,
        }
        return self.add("VM", ref, **{**usual, **fields})

    def guest(self, vm: str, other: dict[str, str] | None = None, drivers: bool = False, **fields: Any) -> None:
        """A guest agent that reports."""
        version = {"major": "9", "minor": "3"} if drivers else {}
        self.add("VM_guest_metrics", f"{vm}-guest", other=other or {}, PV_drivers_version=version, **fields)
        self.set("VM", vm, guest_metrics=f"{vm}-guest")

    def sr(self, ref: str = "sr", hosts: tuple[str, ...] = (), features: str = "", **fields: Any) -> str:
        """An SR of its own type, plugged on these hosts."""
        self.add("SM", f"{ref}-driver", type=f"{ref}-type", features=dict.fromkeys(features.split(), 1))
        self.add("SR", ref, **{"type": f"{ref}-type", **fields})
        for host in hosts:
            self.add("PBD", f"{ref}-on-{host}", SR=ref, host=host, currently_attached=True)
        return ref

    def vdi(self, ref: str = "vdi", sr: str = "sr", **fields: Any) -> str:
        return self.add("VDI", ref, **{"SR": sr, "type": "user", "managed": True, "virtual_size": GIB, **fields})

    def vbd(self, ref: str = "vbd", vm: str = "vm", vdi: str = "vdi", **fields: Any) -> str:
        return self.add("VBD", ref, **{"VM": vm, "VDI": vdi, "userdevice": "0", "mode": "RW", "type": "Disk", **fields})

    def cd(self, ref: str = "cd", vm: str = "vm", vdi: str = "OpaqueRef:NULL", **fields: Any) -> str:
        empty = vdi == "OpaqueRef:NULL"
        usual = {"userdevice": "3", "mode": "RO", "type": "CD", "empty": empty}
        return self.add("VBD", ref, VM=vm, VDI=vdi, **{**usual, **fields})

    def vif(self, ref: str = "vif", vm: str = "vm", network: str = "network", **fields: Any) -> str:
        return self.add("VIF", ref, **{"VM": vm, "network": network, "device": "0", **fields})


ALL_FEATURES = " ".join(
    f"VDI_{name}"
    for name in (
        "CREATE",
        "DELETE",
        "CLONE",
        "SNAPSHOT",
        "RESIZE",
        "RESIZE_ONLINE",
        "INTRODUCE",
        "UPDATE",
        "RESET_ON_BOOT",
        "MIRROR",
        "CONFIG_CBT",
        "GENERATE_CONFIG",
        "REVERT",
    )
)
