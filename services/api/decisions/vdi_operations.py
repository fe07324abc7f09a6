"""Which operations a VDI allows now (storage 4.5). The rules in their order, the first refusal wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from services.api.decisions.rows import Record, Rows, busy, existing, the_pool
from services.api.decisions.sm_features import lacks, plugged_pbds
from services.api.decisions.vbd_operations import is_attached
from services.api.decisions.vdi_types import incompatible
from shared.errors import ApiError

FEATURES: Final[dict[str, str | None]] = {
    "clone": "VDI_CLONE",
    "copy": None,
    "resize": "VDI_RESIZE",
    "resize_online": "VDI_RESIZE_ONLINE",
    "snapshot": "VDI_SNAPSHOT",
    "mirror": "VDI_MIRROR",
    "destroy": "VDI_DELETE",
    "forget": None,
    "update": "VDI_UPDATE",
    "force_unlock": None,
    "generate_config": "VDI_GENERATE_CONFIG",
    "enable_cbt": "VDI_CONFIG_CBT",
    "disable_cbt": "VDI_CONFIG_CBT",
    "data_destroy": "VDI_CONFIG_CBT",
    "list_changed_blocks": "VDI_CONFIG_CBT",
    "set_on_boot": "VDI_RESET_ON_BOOT",
    "blocked": None,
    "revert_to": "VDI_CLONE",
    "revert_from": "VDI_CLONE",
}
"""Each operation, and the feature its SR's driver must have."""

OPERATIONS: Final = tuple(FEATURES)
LISTED: Final = (
    "clone",
    "copy",
    "destroy",
    "forget",
    "generate_config",
    "resize",
    "resize_online",
    "snapshot",
    "update",
)
"""Newer operations are checked but never advertised."""

WHILE_IN_USE: Final = frozenset(
    {
        "snapshot",
        "resize_online",
        "blocked",
        "clone",
        "revert_to",
        "mirror",
        "enable_cbt",
        "disable_cbt",
        "data_destroy",
    }
)
NOT_ON_CBT_METADATA: Final = frozenset(
    {
        "clone",
        "copy",
        "enable_cbt",
        "disable_cbt",
        "mirror",
        "resize",
        "resize_online",
        "snapshot",
        "revert_to",
        "revert_from",
        "set_on_boot",
    }
)
NOT_WITH_CBT: Final = frozenset({"mirror", "set_on_boot"})
NEEDS_MANAGED: Final = frozenset(
    {
        "snapshot",
        "clone",
        "resize",
        "resize_online",
        "destroy",
        "data_destroy",
        "copy",
        "revert_to",
        "revert_from",
        "generate_config",
    }
)
CONTENT_GOES: Final = frozenset({"destroy", "revert_from", "data_destroy"})
HA_TYPES: Final = frozenset({"ha_statefile", "redo_log"})
HA_CHANGES: Final = {"ha_enable": "HA_ENABLE_IN_PROGRESS", "ha_disable": "HA_DISABLE_IN_PROGRESS"}


class VdiFacts:
    """One VDI and what hangs on it, read at most once for all operations."""

    def __init__(self, rows: Rows, ref: str, vdi: Record) -> None:
        self.rows = rows
        self.ref = ref
        self.vdi = vdi
        self.type: str = vdi["type"]
        self.sr_ref: str = vdi["SR"]
        self.sr = existing(rows, "SR", self.sr_ref)

    @cached_property
    def vbds(self) -> list[tuple[str, Record]]:
        found = ((ref, self.rows.row("VBD", ref)) for ref in self.vdi["VBDs"])
        return [(ref, vbd) for ref, vbd in found if vbd is not None]

    def belongs_to_snapshot(self, vbd: Record) -> bool:
        vm = self.rows.row("VM", vbd["VM"])
        return vm is not None and bool(vm["is_a_snapshot"])

    @cached_property
    def ha(self) -> ApiError | None:
        """Why High Availability needs this disk now; None when it does not."""
        pool = the_pool(self.rows)
        if self.type not in HA_TYPES or pool is None:
            return None
        if pool["ha_enabled"]:
            return ApiError("HA_IS_ENABLED")
        if self.type == "redo_log" and pool["redo_log_enabled"]:
            return ApiError("REDO_LOG_IS_ENABLED")
        for running in pool["current_operations"].values():
            if running in HA_CHANGES:
                return ApiError(HA_CHANGES[running])
        return None


def _busy(facts: VdiFacts, op: str) -> ApiError | None:
    for task, running in facts.vdi["current_operations"].items():
        if running != "copy" and not (op == "destroy" and running == "mirror"):
            return busy("VDI", facts.ref, running, task)
    return None


def _no_pbd(facts: VdiFacts, _: str) -> ApiError | None:
    return None if plugged_pbds(facts.rows, facts.sr) else ApiError("SR_HAS_NO_PBDS", facts.sr_ref)


def _in_use(facts: VdiFacts, op: str) -> ApiError | None:
    active = [vbd for _, vbd in facts.vbds if is_attached(vbd)]
    if op == "copy":
        active = [vbd for vbd in active if vbd["mode"] == "RW"]
    elif op == "list_changed_blocks":
        active = [vbd for vbd in active if not facts.belongs_to_snapshot(vbd)]
    return ApiError("VDI_IN_USE", facts.ref, op) if active else None


def _vbd_busy(facts: VdiFacts, _: str) -> ApiError | None:
    for ref, vbd in facts.vbds:
        for task, running in vbd["current_operations"].items():
            return busy("VBD", ref, running, task)
    return None


def _feature(facts: VdiFacts, op: str) -> ApiError | None:
    return lacks(facts.rows, facts.sr_ref, facts.sr, FEATURES[op])


def _cbt_metadata(facts: VdiFacts, _: str) -> ApiError | None:
    return incompatible(facts.ref, facts.type) if facts.type == "cbt_metadata" else None


def _cbt_enabled(facts: VdiFacts, _: str) -> ApiError | None:
    return ApiError("VDI_CBT_ENABLED", facts.ref) if facts.vdi["cbt_enabled"] else None


def _content_needed(facts: VdiFacts, _: str) -> ApiError | None:
    if facts.sr["type"] == "udev":
        return ApiError("VDI_IS_A_PHYSICAL_DEVICE", facts.ref)
    if facts.sr["is_tools_sr"]:
        return ApiError("SR_OPERATION_NOT_SUPPORTED", facts.sr_ref)
    if facts.type == "rrd":
        return ApiError("VDI_HAS_RRDS", facts.ref)
    return facts.ha


def _data_destroy(facts: VdiFacts, _: str) -> ApiError | None:
    if not facts.vdi["is_a_snapshot"]:
        return ApiError("OPERATION_NOT_ALLOWED", "only the content of a snapshot can be destroyed alone")
    return None if facts.vdi["cbt_enabled"] else ApiError("VDI_NO_CBT_METADATA", facts.ref)


def _rrds(facts: VdiFacts, _: str) -> ApiError | None:
    return ApiError("VDI_HAS_RRDS", facts.ref) if facts.type == "rrd" else None


def _ha(facts: VdiFacts, _: str) -> ApiError | None:
    return facts.ha


def _sharable(facts: VdiFacts, _: str) -> ApiError | None:
    return ApiError("VDI_IS_SHARABLE", facts.ref) if facts.vdi["sharable"] else None


def _reset_on_boot(facts: VdiFacts, _: str) -> ApiError | None:
    reset = facts.vdi["on_boot"] == "reset"
    return ApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION") if reset else None


def _being_copied(facts: VdiFacts, _: str) -> ApiError | None:
    copying = "copy" in facts.vdi["current_operations"].values()
    return ApiError("OPERATION_NOT_ALLOWED", "not while the disk is being copied") if copying else None


def _ha_disk(facts: VdiFacts, _: str) -> ApiError | None:
    if facts.type in HA_TYPES:
        return ApiError("OPERATION_NOT_ALLOWED", "disks of High Availability are not copied")
    return None


def _cbt_refused(facts: VdiFacts, _: str) -> ApiError | None:
    if facts.vdi["is_a_snapshot"]:
        return ApiError("OPERATION_NOT_ALLOWED", "changed blocks of a snapshot are not tracked")
    if facts.type not in ("user", "system"):
        return incompatible(facts.ref, facts.type)
    return _reset_on_boot(facts, "")


def _not_a_snapshot(facts: VdiFacts, _: str) -> ApiError | None:
    return None if facts.vdi["is_a_snapshot"] else ApiError("REVERT_ONLY_ALLOWED_ON_SNAPSHOT")


def _unmanaged(facts: VdiFacts, _: str) -> ApiError | None:
    return None if facts.vdi["managed"] else ApiError("VDI_NOT_MANAGED", facts.ref)


@dataclass(frozen=True, slots=True)
class Rule:
    """`asserted`: only when the operation starts, not for `allowed_operations`."""

    question: Callable[[VdiFacts, str], ApiError | None]
    operations: frozenset[str]
    asserted: bool = False


def _all_but(*names: str) -> frozenset[str]:
    return frozenset(OPERATIONS) - set(names)


RULES: Final = (
    Rule(_busy, frozenset(OPERATIONS)),
    Rule(_no_pbd, frozenset({"resize"})),
    Rule(_in_use, frozenset(OPERATIONS) - WHILE_IN_USE),
    Rule(_vbd_busy, _all_but("data_destroy")),
    Rule(_feature, frozenset(OPERATIONS)),
    Rule(_cbt_metadata, NOT_ON_CBT_METADATA),
    Rule(_cbt_enabled, NOT_WITH_CBT),
    Rule(_content_needed, CONTENT_GOES),
    Rule(_data_destroy, frozenset({"data_destroy"})),
    Rule(_ha, frozenset({"forget", "resize", "resize_online"})),
    Rule(_rrds, frozenset({"forget"})),
    Rule(_sharable, frozenset({"snapshot"})),
    Rule(_reset_on_boot, frozenset({"snapshot", "copy"})),
    Rule(_being_copied, frozenset({"snapshot"})),
    Rule(_ha_disk, frozenset({"copy"})),
    Rule(_cbt_refused, frozenset({"enable_cbt", "disable_cbt"})),
    Rule(_not_a_snapshot, frozenset({"revert_to"})),
    Rule(_unmanaged, NEEDS_MANAGED, asserted=True),
)


def _refusal(facts: VdiFacts, op: str, asserting: bool) -> ApiError | None:
    for rule in RULES:
        if op not in rule.operations or (rule.asserted and not asserting):
            continue
        if (error := rule.question(facts, op)) is not None:
            return error
    return None


def check(rows: Rows, vdi: str, op: str, *, asserting: bool = True) -> ApiError | None:
    """Why the operation may not start now; None if it may.

    `asserting` false asks only what `allowed_operations` reflects. Raises HANDLE_INVALID for the SR.
    """
    row = rows.row("VDI", vdi)
    if row is None:
        return ApiError("HANDLE_INVALID", "VDI", vdi)
    return _refusal(VdiFacts(rows, vdi, row), op, asserting)


def allowed_operations(rows: Rows, vdi: str) -> list[str]:
    """What belongs into `VDI.allowed_operations`, sorted. Raises HANDLE_INVALID."""
    facts = VdiFacts(rows, vdi, existing(rows, "VDI", vdi))
    return [op for op in LISTED if _refusal(facts, op, asserting=False) is None]
