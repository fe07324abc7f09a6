"""Rows that nothing needs any more, since what they belong to is gone (`database-pool-ha` 1.11). Pure functions.

Most rows go when a reference that they depend on leads nowhere (`shared.datamodel.dependents`). What takes other rows
along, or goes for another reason, is said here. The rules are in the order in which they are to be followed: what one
of them removes leaves garbage for those after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from services.api.decisions.gpus import group_types
from services.api.decisions.rows import Record, Rows, is_null
from shared.contracts.db import Change, Delete, Equals, Precondition, RowAbsent, RowPresent, SetDrop, Update
from shared.datamodel import model
from shared.datamodel.dependents import DEPENDS_ON
from shared.datamodel.types import NULL_REF, RefType

Facts = list[Precondition]


@dataclass(frozen=True, slots=True)
class Garbage:
    """`changes`: what happens to one row and to those that go with it. `given`: why, as it must still be then."""

    changes: list[Change]
    given: Facts


Find = Callable[[Rows, str, Record], Garbage | None]
"""What is to be done about a row; None: it is not garbage."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`afterwards`: what else changes when these rows have gone; all of one transaction are asked about together."""

    cls: str
    find: Find
    afterwards: Callable[[Rows, list[Record], set[str]], list[Change]] = lambda rows, gone, refs: []


# ---- references that lead nowhere


def target(cls: str, field: str) -> str:
    """The class of the rows that a reference leads to."""
    declared = model.classes[cls].fields[field].type
    assert isinstance(declared, RefType)
    return declared.cls


_TARGETS: Final = {cls: tuple((field, target(cls, field)) for field in fields) for cls, fields in DEPENDS_ON.items()}


def _why(rows: Rows, cls: str, ref: str, row: Record, field: str, to_cls: str) -> Facts | None:
    """None: the reference leads to a row."""
    to = row[field]
    if not is_null(to) and rows.row(to_cls, to) is not None:
        return None
    facts: Facts = [Equals(cls=cls, ref=ref, field=field, value=to)]
    return facts if is_null(to) else [*facts, RowAbsent(cls=to_cls, ref=to)]


def _orphan(cls: str, along: Callable[[Rows, Record], Iterable[Change]] = lambda rows, row: ()) -> Find:
    """`along`: what goes with the row."""

    def find(rows: Rows, ref: str, row: Record) -> Garbage | None:
        for field, to_cls in _TARGETS[cls]:
            given = _why(rows, cls, ref, row, field, to_cls)
            if given is not None:
                return Garbage([*along(rows, row), Delete(cls=cls, ref=ref)], given)
        return None

    return find


# ---- what goes along


def _named(rows: Rows, cls: str, refs: Iterable[str]) -> list[Change]:
    return [Delete(cls=cls, ref=ref) for ref in refs if not is_null(ref) and rows.row(cls, ref) is not None]


def _with_pif(rows: Rows, row: Record) -> list[Change]:
    """What the interface was the upper end of. VLANs and tunnels show the metrics of the card below."""
    lower = not is_null(row["VLAN_master_of"]) or row["tunnel_access_PIF_of"]
    return [
        *([] if lower else _named(rows, "PIF_metrics", [row["metrics"]])),
        *_named(rows, "VLAN", [row["VLAN_master_of"]]),
        *_named(rows, "tunnel", row["tunnel_access_PIF_of"]),
        *_named(rows, "network_sriov", row["sriov_logical_PIF_of"]),
        *_named(rows, "Bond", row["bond_master_of"]),
    ]


def _vbd(rows: Rows, ref: str, row: Record) -> Garbage | None:
    """A drive of a VM that is there stays, empty; an empty one misses nothing."""
    metrics = _named(rows, "VBD_metrics", [row["metrics"]])
    without_vm = _why(rows, "VBD", ref, row, "VM", "VM")
    if without_vm is not None:
        return Garbage([*metrics, Delete(cls="VBD", ref=ref)], without_vm)
    without_vdi = None if row["empty"] else _why(rows, "VBD", ref, row, "VDI", "VDI")
    if without_vdi is None:
        return None
    given = [*without_vdi, Equals(cls="VBD", ref=ref, field="empty", value=False)]
    if row["type"] == "CD":
        return Garbage([Update(cls="VBD", ref=ref, fields={"VDI": NULL_REF, "empty": True})], given)
    return Garbage([*metrics, Delete(cls="VBD", ref=ref)], given)


def _certificate(rows: Rows, ref: str, row: Record) -> Garbage | None:
    """Those of authorities are of no host."""
    return _orphan("Certificate")(rows, ref, row) if row["type"] in ("host", "host_internal") else None


def _groups_of(rows: Rows, gone: list[Record], refs: set[str]) -> list[Change]:
    """A group of GPUs has the types of those that it still has."""
    changes: list[Change] = []
    for group in dict.fromkeys(row["GPU_group"] for row in gone):
        found = rows.row("GPU_group", group)
        if found is not None:
            changes += group_types(rows, group, [pgpu for pgpu in found["PGPUs"] if pgpu not in refs])
    return changes


# ---- rows that nobody refers to


def _unused_vgpu_type(rows: Rows, ref: str, row: Record) -> Garbage | None:
    users = ("VGPUs", "supported_on_PGPUs")
    if any(row[field] for field in users):
        return None
    given: Facts = [Equals(cls="VGPU_type", ref=ref, field=field, value=[]) for field in users]
    return Garbage([Delete(cls="VGPU_type", ref=ref)], given)


def _unused_host_metrics(rows: Rows, ref: str, row: Record) -> Garbage | None:
    """No host begins to refer to metrics that were there before it: both are made together."""
    if any(host["metrics"] == ref for host in rows.rows("host").values()):
        return None
    return Garbage([Delete(cls="host_metrics", ref=ref)], [])


def _rebooted_for(rows: Rows, ref: str, row: Record) -> Garbage | None:
    """Updates that are gone need no reboot."""
    field = "updates_requiring_reboot"
    gone = [update for update in row[field] if rows.row("pool_update", update) is None]
    if not gone:
        return None
    given: Facts = [RowAbsent(cls="pool_update", ref=update) for update in gone if not is_null(update)]
    drops: list[Change] = [SetDrop(cls="host", ref=ref, field=field, value=update) for update in gone]
    return Garbage(drops, [RowPresent(cls="host", ref=ref), *given])


RULES: Final[tuple[Rule, ...]] = (
    Rule("VDI", _orphan("VDI")),
    Rule("PIF", _orphan("PIF", _with_pif)),
    Rule("Cluster_host", _orphan("Cluster_host")),
    Rule("VBD", _vbd),
    Rule("crashdump", _orphan("crashdump")),
    Rule("VIF", _orphan("VIF", lambda rows, row: _named(rows, "VIF_metrics", [row["metrics"]]))),
    Rule("PBD", _orphan("PBD")),
    Rule("PUSB", _orphan("PUSB")),
    Rule("VGPU", _orphan("VGPU")),
    Rule("PGPU", _orphan("PGPU"), _groups_of),
    Rule("VGPU_type", _unused_vgpu_type),
    Rule("PCI", _orphan("PCI")),
    Rule("Feature", _orphan("Feature")),
    Rule("host_patch", _orphan("host_patch")),
    Rule("host_cpu", _orphan("host_cpu")),
    Rule("host_metrics", _unused_host_metrics),
    Rule("console", _orphan("console")),
    Rule("PVS_proxy", _orphan("PVS_proxy")),
    Rule("PVS_server", _orphan("PVS_server")),
    Rule("PVS_cache_storage", _orphan("PVS_cache_storage")),
    Rule("Certificate", _certificate),
    Rule("VTPM", _orphan("VTPM", lambda rows, row: _named(rows, "secret", [row["contents"]]))),
    Rule("host", _rebooted_for),
    Rule("Host_driver", _orphan("Host_driver")),
    Rule("Driver_variant", _orphan("Driver_variant")),
    Rule("tunnel", _orphan("tunnel", lambda rows, row: _named(rows, "PIF", [row["access_PIF"]]))),
)


def found(rows: Rows, rule: Rule, refs: Iterable[str]) -> Iterator[str]:
    """Which of these rows are garbage."""
    for ref in refs:
        row = rows.row(rule.cls, ref)
        if row is not None and rule.find(rows, ref, row) is not None:
            yield ref


def removal(rows: Rows, rule: Rule, refs: Iterable[str]) -> tuple[list[Change], Facts, int]:
    """What is to be done about those of the rows that are garbage now, given what, and how many they are."""
    changes: list[Change] = []
    given: Facts = []
    gone: dict[str, Record] = {}
    for ref in refs:
        row = rows.row(rule.cls, ref)
        garbage = None if row is None else rule.find(rows, ref, row)
        if row is not None and garbage is not None:
            changes += garbage.changes
            given += garbage.given
            gone[ref] = row
    if gone:
        changes += rule.afterwards(rows, list(gone.values()), set(gone))
    return changes, given, len(gone)
