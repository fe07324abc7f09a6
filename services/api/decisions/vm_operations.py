"""Which operations a VM allows now.

The rules of the original in their order, the first refusal wins. What depends only on the operation is data; a rule is
a table entry with the operations it concerns and a question about the VM.

Not decided here yet: the list of operations allowed during a rolling pool upgrade.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from services.api.decisions.rows import Record, Rows, busy, existing, is_null, is_true, the_pool
from shared.errors import ApiError

ANY_STATE: Final = ("Halted", "Paused", "Suspended", "Running")
_H: Final = ("Halted",)
_R: Final = ("Running",)

POWER_STATES: Final[dict[str, tuple[str, ...]]] = {
    "start": _H,
    "start_on": _H,
    "provision": _H,
    "make_into_template": _H,
    "changing_shadow_memory": _H,
    "changing_NVRAM": _H,
    "create_vtpm": _H,
    "changing_VCPUs": _H,
    "changing_static_range": _H,
    "changing_memory_limits": _H,
    "clone": _H,
    "copy": _H,
    "changing_dynamic_range": ("Halted", "Running"),
    "create_template": ("Halted", "Suspended"),
    "destroy": ("Halted", "Suspended"),
    "export": ("Halted", "Suspended"),
    "unpause": ("Paused",),
    "resume": ("Suspended",),
    "resume_on": ("Suspended",),
    "csvm": ("Suspended",),
    "pause": _R,
    "suspend": _R,
    "pool_migrate": _R,
    "clean_shutdown": _R,
    "clean_reboot": _R,
    "changing_VCPUs_live": _R,
    "changing_memory_live": _R,
    "awaiting_memory_live": _R,
    "changing_shadow_memory_live": _R,
    "call_plugin": _R,
    "data_source_op": _R,
    "send_sysrq": _R,
    "send_trigger": _R,
    "snapshot_with_quiesce": _R,
    "sysprep": _R,
    "hard_reboot": ("Paused", "Running"),
    "hard_shutdown": ("Paused", "Suspended", "Running"),
    "shutdown": ("Paused", "Suspended", "Running"),
    "checkpoint": ("Paused", "Suspended", "Running"),
    "get_boot_record": ("Paused", "Suspended", "Running"),
    "migrate_send": ("Halted", "Suspended", "Running"),
    "snapshot": ANY_STATE,
    "revert": ANY_STATE,
    "reverting": ANY_STATE,
    "metadata_export": ANY_STATE,
    "power_state_reset": ANY_STATE,
    "assert_operation_valid": ANY_STATE,
    "update_allowed_operations": ANY_STATE,
    "query_services": ANY_STATE,
    "import": (),
}
"""Power states an operation may start in, in the order a refusal lists them (vm-lifecycle 1.2)."""

OPERATIONS: Final = tuple(POWER_STATES)

ALSO_RUNNING_CONTROL_DOMAIN: Final = frozenset({"changing_VCPUs", "changing_static_range", "changing_memory_limits"})
ALSO_SUSPENDED: Final = frozenset({"clone", "copy"})
"""When the VM is a snapshot, or the pool's other_config says allow_clone_suspended_vm=true."""

NEVER_LISTED: Final = frozenset(
    {
        "create_template",
        "power_state_reset",
        "csvm",
        "get_boot_record",
        "send_sysrq",
        "send_trigger",
        "query_services",
        "shutdown",
        "call_plugin",
        "changing_memory_live",
        "awaiting_memory_live",
        "changing_memory_limits",
        "changing_shadow_memory_live",
        "changing_VCPUs",
        "assert_operation_valid",
        "data_source_op",
        "update_allowed_operations",
        "import",
        "reverting",
    }
)
"""Operations that `allowed_operations` leaves out although they may be possible (vm-lifecycle 1.5)."""

LISTED: Final = tuple(sorted(set(OPERATIONS) - NEVER_LISTED))


@dataclass(frozen=True, slots=True)
class Concurrency:
    """`operations` may start while others run, if all of these run `alongside` (None: any) and none of them `never`.

    `alone`: and if exactly one other runs.
    """

    operations: frozenset[str]
    alongside: frozenset[str] | None = None
    never: frozenset[str] = frozenset()
    alone: bool = False

    def covers(self, operation: str, running: list[str]) -> bool:
        return (
            operation in self.operations
            and (self.alongside is None or self.alongside.issuperset(running))
            and self.never.isdisjoint(running)
            and (not self.alone or len(running) == 1)
        )


_COPYING: Final = frozenset({"clone", "copy", "export"})
_SNAPSHOTTING: Final = frozenset({"snapshot", "checkpoint"})

CONCURRENCY: Final = (
    Concurrency(_COPYING, alongside=_COPYING),
    Concurrency(_SNAPSHOTTING, alongside=_SNAPSHOTTING),
    Concurrency(frozenset({"get_boot_record"}), alongside=frozenset({"get_boot_record"})),
    Concurrency(frozenset({"hard_shutdown"}), never=frozenset({"hard_shutdown"})),
    Concurrency(frozenset({"hard_reboot"}), never=frozenset({"hard_shutdown", "hard_reboot"})),
    Concurrency(
        frozenset({"metadata_export", "clean_shutdown", "clean_reboot"}),
        alongside=frozenset({"migrate_send"}),
        alone=True,
    ),
    Concurrency(frozenset({"snapshot"}), alongside=frozenset({"snapshot_with_quiesce"}), alone=True),
)
"""Exceptions from "one operation at a time" (vm-lifecycle 1.4)."""

ON_TEMPLATES: Final = frozenset(
    {
        "changing_dynamic_range",
        "changing_static_range",
        "changing_memory_limits",
        "changing_shadow_memory",
        "changing_VCPUs",
        "changing_NVRAM",
        "clone",
        "copy",
        "export",
        "metadata_export",
        "provision",
    }
)
ON_CUSTOM_TEMPLATES: Final = ON_TEMPLATES | {"destroy", "migrate_send"}
ON_SNAPSHOTS: Final = frozenset({"revert", "clone", "copy", "export", "destroy", "hard_shutdown", "metadata_export"})
ON_CONTROL_DOMAINS: Final = frozenset(
    {
        "data_source_op",
        "changing_memory_live",
        "awaiting_memory_live",
        "metadata_export",
        "changing_dynamic_range",
        "changing_memory_limits",
        "changing_static_range",
        "changing_VCPUs",
        "start",
        "start_on",
        "destroy",
    }
)
NOT_ON_DOM0: Final = frozenset({"changing_VCPUs", "destroy"})

UNNAMED: Final = frozenset({"query_services", "changing_memory_limits"})
UNNAMED_OPERATION: Final = "(unknown operation)"
"""What VM_IS_TEMPLATE and VM_IS_SNAPSHOT say for operations that the original has no name for."""

MOVES: Final = frozenset({"suspend", "checkpoint", "pool_migrate", "migrate_send"})
"""The VM's memory has to be saved or sent, and the devices with it."""

FEATURES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(MOVES, ("feature-suspend",)),
    "clean_shutdown": ("feature-shutdown", "feature-poweroff"),
    "clean_reboot": ("feature-shutdown", "feature-reboot"),
    "changing_VCPUs_live": ("feature-vcpu-hotplug",),
}
"""What the guest must help with; one of them, found in `VM_guest_metrics.other`, is enough."""

IMPLICIT_SUPPORT: Final = frozenset({"pv", "pv_in_pvh", "pvh"})
"""Domain types whose kernels are known to have all features."""


class VmFacts:
    """One VM and what hangs on it, read at most once for all operations."""

    def __init__(self, rows: Rows, ref: str, vm: Record, strict: bool) -> None:
        self.rows = rows
        self.ref = ref
        self.vm = vm
        self.strict = strict
        self.power_state: str = vm["power_state"]
        self.current: dict[str, str] = vm["current_operations"]
        self.is_snapshot: bool = vm["is_a_snapshot"]
        self.is_template: bool = vm["is_a_template"] and not self.is_snapshot

    @property
    def is_live(self) -> bool:
        return self.power_state in ("Running", "Paused")

    @cached_property
    def metrics(self) -> Record | None:
        return self.rows.row("VM_metrics", self.vm["metrics"])

    @cached_property
    def guest_metrics(self) -> Record | None:
        return self.rows.row("VM_guest_metrics", self.vm["guest_metrics"])

    @cached_property
    def guest_features(self) -> dict[str, str]:
        """`control/*` keys of the guest agent, and what it says against being suspended."""
        return {} if self.guest_metrics is None else self.guest_metrics["other"]

    @cached_property
    def has_drivers(self) -> bool:
        return self.guest_metrics is not None and drivers_known(self.guest_metrics)

    @cached_property
    def supports_implicitly(self) -> bool:
        booted = self.metrics["current_domain_type"] if self.metrics is not None else "unspecified"
        return not self.is_live or booted in IMPLICIT_SUPPORT or self.has_drivers

    @cached_property
    def uses_nested_virt(self) -> bool:
        return self._metric_or_platform("nested_virt", "nested-virt")

    @cached_property
    def is_immobile(self) -> bool:
        return self.uses_nested_virt or self._metric_or_platform("nomigrate", "nomigrate")

    def _metric_or_platform(self, metric: str, key: str) -> bool:
        if self.metrics is not None:
            return bool(self.metrics[metric])
        return is_true(self.vm["platform"].get(key))

    @cached_property
    def clones_on_boot(self) -> list[dict[str, str]]:
        """`sm_config` of the disks that are reset at each boot (the key in sm_config, not the field `on_boot`)."""
        vbds = (self.rows.row("VBD", ref) for ref in self.vm["VBDs"])
        vdis = (self.rows.row("VDI", vbd["VDI"]) for vbd in vbds if vbd is not None)
        configs = (vdi["sm_config"] for vdi in vdis if vdi is not None)
        return [config for config in configs if config.get("on_boot") == "reset"]

    @cached_property
    def vgpus(self) -> list[tuple[Record, str]]:
        """Each with the implementation of its type."""
        found = [(vgpu, self.rows.row("VGPU_type", vgpu["type"])) for vgpu in map(self._vgpu, self.vm["VGPUs"]) if vgpu]
        return [(vgpu, kind["implementation"] if kind is not None else "") for vgpu, kind in found]

    def _vgpu(self, ref: str) -> Record | None:
        return self.rows.row("VGPU", ref)


def drivers_known(guest_metrics: Record) -> bool:
    """Whether the guest has paravirtual drivers: their version has a number as major and as minor."""
    version: dict[str, str] = guest_metrics["PV_drivers_version"]
    return all(version.get(part, "").lstrip("-").isdecimal() for part in ("major", "minor"))


# ---- the rules: each answers None, or why not


def _blocked(facts: VmFacts, op: str) -> ApiError | None:
    reason = facts.vm["blocked_operations"].get(op)
    return None if reason is None else ApiError("OPERATION_BLOCKED", facts.ref, reason)


def _power_state(facts: VmFacts, op: str) -> ApiError | None:
    expected = POWER_STATES[op]
    if facts.power_state in expected:
        return None
    if op in ALSO_RUNNING_CONTROL_DOMAIN and facts.vm["is_control_domain"]:
        expected = (*expected, "Running")
    if op in ALSO_SUSPENDED and (facts.is_snapshot or _clones_suspended(facts.rows)):
        expected = (*expected, "Suspended")
    if facts.power_state in expected:
        return None
    return bad_power_state(facts.ref, expected, facts.power_state)


def _clones_suspended(rows: Rows) -> bool:
    pool = the_pool(rows)
    return pool is not None and is_true(pool["other_config"].get("allow_clone_suspended_vm"))


def bad_power_state(vm: str, expected: tuple[str, ...], actual: str) -> ApiError:
    """VM_BAD_POWER_STATE as operation checks write it: lower case, comma and space."""
    return ApiError("VM_BAD_POWER_STATE", vm, ", ".join(state.lower() for state in expected), actual.lower())


def _busy(facts: VmFacts, op: str) -> ApiError | None:
    if not facts.current:
        return None
    tasks, running = list(facts.current), list(facts.current.values())
    if any(exception.covers(op, running) for exception in CONCURRENCY):
        return None
    if len(running) == 1:
        return busy("VM", facts.ref, running[0], tasks[0])
    return busy("VM", facts.ref, "{" + ",".join(running) + "}", "{" + ",".join(tasks) + "}")


def _template(facts: VmFacts, op: str) -> ApiError | None:
    if not facts.is_template:
        return None
    allowed = ON_TEMPLATES if facts.vm["is_default_template"] else ON_CUSTOM_TEMPLATES
    return None if op in allowed else ApiError("VM_IS_TEMPLATE", facts.ref, _named(op))


def _snapshot(facts: VmFacts, op: str) -> ApiError | None:
    if not facts.is_snapshot or op in ON_SNAPSHOTS:
        return None
    return ApiError("VM_IS_SNAPSHOT", facts.ref, _named(op))


def _named(op: str) -> str:
    return UNNAMED_OPERATION if op in UNNAMED else op


def _only_on_templates(facts: VmFacts, _: str) -> ApiError | None:
    return None if facts.vm["is_a_template"] else ApiError("PROVISION_ONLY_ALLOWED_ON_TEMPLATE")


def _only_on_snapshots(facts: VmFacts, _: str) -> ApiError | None:
    return None if facts.is_snapshot else ApiError("REVERT_ONLY_ALLOWED_ON_SNAPSHOT")


def _immobile(facts: VmFacts, _: str) -> ApiError | None:
    return ApiError("VM_IS_IMMOBILE", facts.ref) if facts.strict and facts.is_immobile else None


def _nested_virt(facts: VmFacts, _: str) -> ApiError | None:
    return ApiError("VM_IS_USING_NESTED_VIRT", facts.ref) if facts.strict and facts.uses_nested_virt else None


def _control_domain(facts: VmFacts, op: str) -> ApiError | None:
    if not facts.vm["is_control_domain"]:
        return None
    if op in NOT_ON_DOM0 and _is_dom0(facts):
        return ApiError("OPERATION_NOT_ALLOWED", "This operation is not allowed on dom0")
    if op not in ON_CONTROL_DOMAINS:
        return ApiError("OPERATION_NOT_ALLOWED", "This operation is not allowed on a control domain")
    return None


def _is_dom0(facts: VmFacts) -> bool:
    host = facts.rows.row("host", facts.vm["resident_on"])
    return facts.vm["domid"] == 0 or (host is not None and host["control_domain"] == facts.ref)


def _guest_features(facts: VmFacts, op: str) -> ApiError | None:
    if not facts.is_live:
        return None
    reason = facts.guest_features.get("data-cant-suspend-reason")
    if op in MOVES and reason is not None:
        return ApiError("VM_NON_SUSPENDABLE", facts.ref, reason)
    if not facts.strict or facts.supports_implicitly:
        return None
    if any(facts.guest_features.get(feature) == "1" for feature in FEATURES[op]):
        return None
    return ApiError("VM_LACKS_FEATURE", facts.ref)


def _quiesce(facts: VmFacts, _: str) -> ApiError | None:
    return ApiError("VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", facts.ref)


def _on_boot_reset(facts: VmFacts, op: str) -> ApiError | None:
    disks = facts.clones_on_boot
    if op == "pool_migrate":
        disks = [config for config in disks if is_true(config.get("caching"))]
    return ApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION") if disks else None


def _pci(facts: VmFacts, _: str) -> ApiError | None:
    virtual = {vgpu["PCI"] for vgpu, implementation in facts.vgpus if implementation == "nvidia_sriov"}
    attached = [pci for pci in facts.vm["attached_PCIs"] if pci not in virtual]
    return ApiError("VM_HAS_PCI_ATTACHED", facts.ref) if attached else None


def _vgpu(facts: VmFacts, op: str) -> ApiError | None:
    if (op, facts.power_state) in (("migrate_send", "Halted"), ("checkpoint", "Suspended")):
        return None
    movable = (
        implementation in ("nvidia", "nvidia_sriov") and vgpu["compatibility_metadata"]
        for vgpu, implementation in facts.vgpus
    )
    return None if all(movable) else ApiError("VM_HAS_VGPU", facts.ref)


def _vusb(facts: VmFacts, _: str) -> ApiError | None:
    return ApiError("VM_HAS_VUSBS", facts.ref) if facts.vm["VUSBs"] else None


def _bound_by_owner(facts: VmFacts, _: str) -> ApiError | None:
    """An appliance that is gone does not bind: its VMs keep its reference."""
    if facts.rows.row("VM_appliance", appliance := facts.vm["appliance"]) is not None:
        return ApiError("VM_IS_PART_OF_AN_APPLIANCE", facts.ref, appliance)
    if not is_null(schedule := facts.vm["snapshot_schedule"]):
        return ApiError("VM_ASSIGNED_TO_SNAPSHOT_SCHEDULE", facts.ref, schedule)
    return None


def _not_a_system_domain(facts: VmFacts, _: str) -> ApiError | None:
    is_system = is_true(facts.vm["other_config"].get("is_system_domain"))
    return None if is_system else ApiError("NOT_SYSTEM_DOMAIN", facts.ref)


def _one_vtpm(facts: VmFacts, _: str) -> ApiError | None:
    return ApiError("VTPM_MAX_AMOUNT_REACHED", 1) if facts.vm["VTPMs"] else None


Question = Callable[[VmFacts, str], ApiError | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`operations`: those it concerns, None for all."""

    question: Question
    operations: frozenset[str] | None = None


RULES: Final = (
    Rule(_blocked),
    Rule(_power_state, frozenset(op for op, states in POWER_STATES.items() if states != ANY_STATE)),
    Rule(_busy),
    Rule(_template),
    Rule(_snapshot),
    Rule(_only_on_templates, frozenset({"provision"})),
    Rule(_only_on_snapshots, frozenset({"revert"})),
    Rule(_immobile, MOVES),
    Rule(_nested_virt, frozenset({"changing_dynamic_range"})),
    Rule(_control_domain),
    Rule(_guest_features, frozenset(FEATURES)),
    Rule(_quiesce, frozenset({"snapshot_with_quiesce"})),
    Rule(_on_boot_reset, frozenset({"snapshot", "checkpoint", "suspend", "pool_migrate"})),
    Rule(_pci, MOVES),
    Rule(_vgpu, MOVES),
    Rule(_vusb, MOVES | {"snapshot"}),
    Rule(_bound_by_owner, frozenset({"make_into_template"})),
    Rule(_not_a_system_domain, frozenset({"query_services"})),
    Rule(_one_vtpm, frozenset({"create_vtpm"})),
)
"""In the order of vm-lifecycle 1.3."""

_QUESTIONS: Final[dict[str, tuple[Question, ...]]] = {
    op: tuple(rule.question for rule in RULES if rule.operations is None or op in rule.operations) for op in OPERATIONS
}


def _refusal(facts: VmFacts, op: str) -> ApiError | None:
    for question in _QUESTIONS[op]:
        if (error := question(facts, op)) is not None:
            return error
    return None


def check(rows: Rows, vm: str, op: str, strict: bool = True) -> ApiError | None:
    """Why the operation may not start now; None if it may.

    `strict` false: what a forced migration may ignore is ignored. `op` is a member of the enum vm_operations.
    """
    row = rows.row("VM", vm)
    if row is None:
        return ApiError("HANDLE_INVALID", "VM", vm)
    return _refusal(VmFacts(rows, vm, row, strict), op)


def allowed_operations(rows: Rows, vm: str) -> list[str]:
    """What belongs into `VM.allowed_operations`, sorted. Raises HANDLE_INVALID."""
    facts = VmFacts(rows, vm, existing(rows, "VM", vm), strict=True)
    return [op for op in _CANDIDATES[facts.power_state] if _refusal(facts, op) is None]


def _candidates(power_state: str) -> tuple[str, ...]:
    """The listed operations that some VM in that state allows: asking why the others are refused is no use."""
    return tuple(
        op
        for op in LISTED
        if power_state in POWER_STATES[op]
        or (power_state == "Running" and op in ALSO_RUNNING_CONTROL_DOMAIN)
        or (power_state == "Suspended" and op in ALSO_SUSPENDED)
    )


_CANDIDATES: Final = {power_state: _candidates(power_state) for power_state in ANY_STATE}
