"""VM messages about UEFI variables and the certificates of Secure Boot among them. They are kept, not read."""

from __future__ import annotations

from typing import Any, Final

from services.api.call import Call
from services.api.decisions import boot
from services.api.decisions.rows import existing, is_true
from services.api.operation import operation
from shared.contracts.db import Change, MapPut, Update
from shared.errors import ApiError
from shared.vm_defaults import DEVICE_MODELS

VARIABLES: Final = "EFI-variables"
"""Key in the VM's NVRAM."""


@operation("VM.set_NVRAM_EFI_variables")
async def set_variables(call: Call, self: str, value: str, update: str) -> None:
    """As the firmware left them, in any power state. `update`: "yes" when the certificates are up to date with that."""
    existing(call.store, "VM", self)
    changes: list[Change] = [MapPut(cls="VM", ref=self, field="NVRAM", key=VARIABLES, value=value)]
    if update == "yes":
        changes.append(Update(cls="VM", ref=self, fields={"secureboot_certificates_state": "ok"}))
    await call.transact(changes)


@operation("VM.get_secureboot_readiness")
def get_readiness(call: Call, self: str) -> str:
    """What certificates there are after the first boot would be read from the variables, which is not built yet."""
    row = existing(call.store, "VM", self)
    firmware = boot.firmware(row)
    if firmware not in DEVICE_MODELS:
        raise ApiError("INVALID_VALUE", "HVM-boot-params['firmware']", firmware)
    if firmware != "uefi":
        return "not_supported"
    if not is_true(row["platform"].get("secureboot")):
        return "disabled"
    if VARIABLES not in row["NVRAM"]:
        return "first_boot"
    raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} after the first boot")


NEXT: Final[dict[bool, dict[str, dict[str, Any]]]] = {
    True: {"update_available": {"secureboot_certificates_state": "update_on_boot"}, "update_on_boot": {}},
    False: {"update_on_boot": {"secureboot_certificates_state": "update_available"}, "update_available": {}},
}
"""Whether to mark the VM, then the state of its certificates: what changes."""


@operation("VM.update_secureboot_certificates_on_boot")
async def update_on_boot(call: Call, self: str, mark: bool) -> None:
    state = existing(call.store, "VM", self)["secureboot_certificates_state"]
    if state not in NEXT[mark]:
        raise ApiError("OPERATION_NOT_ALLOWED", f"the VM's certificates are '{state}'")
    if fields := NEXT[mark][state]:
        await call.transact([Update(cls="VM", ref=self, fields=fields)])
