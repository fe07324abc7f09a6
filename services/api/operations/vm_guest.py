"""VM messages that ask something of a guest, or change a running VM. Neither is built yet: what can be told without
the guest is told.
"""

from __future__ import annotations

from typing import Any, Final

from services.api.allowed import CHECKS
from services.api.call import Call
from services.api.decisions import features
from services.api.decisions.numbers import float_text
from services.api.decisions.rows import Record, existing
from services.api.decisions.vm_operations import bad_power_state
from services.api.operation import Lock, Policy, operation
from shared.errors import ApiError

# ---- the guest's agent

AGENT: Final = "guest-agent-operation"
RDP: Final = ("request-rdp-on", "request-rdp-off")
SCRIPT: Final = "run-script"
SCRIPT_ARGUMENTS: Final = ("username", "password", "script")


@operation("VM.call_plugin", Lock("VM", "call_plugin", policy=Policy.FAIL_IMMEDIATELY), built=False)
def call_plugin(call: Call, vm: str, plugin: str, fn: str, args: dict[str, str]) -> str:
    if plugin != AGENT:
        raise ApiError("XENAPI_MISSING_PLUGIN", plugin)
    if fn == SCRIPT:
        _check_script(call, args)
    elif fn not in RDP:
        raise _failed("failed to find fn", f'The requested fn "{fn}" could not be found in plugin "{plugin}".')
    elif not _offers_rdp(call, existing(call.store, "VM", vm)):
        reason = f'The requested fn "{fn}" of plugin "{plugin}" could not be executed: the guest lacks the feature.'
        raise _failed("failed to execute fn", reason)
    raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} of {fn}")


def _failed(what: str, why: str) -> ApiError:
    return ApiError("XENAPI_PLUGIN_FAILURE", what, why, why)


def _check_script(call: Call, args: dict[str, str]) -> None:
    if call.api.pool()["other_config"].get("allow_guest_agent_run_script") != "true":
        raise ApiError("FEATURE_RESTRICTED")
    for name in SCRIPT_ARGUMENTS:
        if name not in args:
            raise ApiError("XENAPI_PLUGIN_FAILURE", "missing argument", "", f"Argument {name} is required.")


def _offers_rdp(call: Call, vm: Record) -> bool:
    metrics = call.store.row("VM_guest_metrics", vm["guest_metrics"])
    return metrics is not None and metrics["other"].get("feature-ts2", "") not in ("", "0")


UNATTEND_LIMIT: Final = 32 * 1024
"""Characters of the answers to Windows' questions."""


@operation("VM.sysprep", Lock("VM", "sysprep", policy=Policy.FAIL_IMMEDIATELY), built=False)
def sysprep(call: Call, self: str, unattend: str, timeout: float) -> None:
    """No guest can say that its driver does that."""
    if timeout < 0:
        raise ApiError("INVALID_VALUE", "timeout", float_text(timeout))
    uuid = call.api.uuid_of("VM", self)
    if len(unattend) > UNATTEND_LIMIT:
        raise ApiError("SYSPREP", uuid, "unattend.xml file too large")
    raise ApiError("SYSPREP", uuid, "VM driver does not support sysprep")


# ---- CPUs and memory


@operation("VM.set_VCPUs_number_live", Lock("VM", "changing_VCPUs_live"), built=False)
def set_vcpus_number_live(call: Call, self: str, nvcpu: int) -> None:
    features.require(call.store, "set_vcpus_number_live", "Live_set_vcpus")
    if not 1 <= nvcpu <= existing(call.store, "VM", self)["VCPUs_max"]:
        raise ApiError("INVALID_VALUE", "VCPU values must satisfy: 0 < VCPUs \u2264 VCPUs_max", nvcpu)
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("VM.wait_memory_target_live", Lock("VM", "awaiting_memory_live"))
def wait_memory_target_live(call: Call, self: str) -> None:
    """Nothing is awaited: as long as memory is not ballooned, a VM has what it is meant to have."""


# ---- the running machine


def _sleep(message: str) -> None:
    @operation(message, built=False)
    def sleep(call: Call, vm: str) -> None:
        """ACPI sleep, to memory."""
        row = existing(call.store, "VM", vm)
        if row["power_state"] not in ("Running", "Paused"):
            raise bad_power_state(vm, ("Running",), row["power_state"])
        raise ApiError("NOT_IMPLEMENTED", message)


for _name in ("VM.s3_suspend", "VM.s3_resume"):
    _sleep(_name)


@operation("VM.restart_device_models", built=False)
def restart_device_models(call: Call, self: str) -> None:
    """A migration to where it is."""
    row = existing(call.store, "VM", self)
    if row["power_state"] != "Running":
        raise ApiError("VM_BAD_POWER_STATE", self, "Running", row["power_state"])
    refusal = CHECKS["VM"](call.store, self, "pool_migrate")
    if refusal is not None:
        raise refusal
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


@operation("VM.retrieve_wlb_recommendations", built=False)
def retrieve_wlb_recommendations(call: Call, vm: str) -> dict[str, Any]:
    existing(call.store, "VM", vm)
    pool = call.api.pool()
    if not pool["wlb_url"]:
        raise ApiError("WLB_NOT_INITIALIZED")
    if not pool["wlb_enabled"]:
        raise ApiError("WLB_DISABLED")
    raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)
