"""Messages of classes PCI and PGPU about who may use a device: its host, or VMs. To change that takes another start of
the machine, which nobody prepares yet.
"""

from __future__ import annotations

from services.api.call import Call
from services.api.decisions.host_devices import dom0_access
from services.api.decisions.liveness import require_live
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.errors import ApiError


@operation("PCI.get_dom0_access_status")
def get_dom0_access_status(call: Call, self: str) -> str:
    """As its host found it when it started."""
    row = existing(call.store, "PCI", self)
    require_live(call.store, row["host"])
    return dom0_access(row["driver_name"])


def _not_built(message: str) -> None:
    @operation(message, built=False)
    def change(call: Call, self: str) -> str:
        cls = call.message.cls
        require_live(call.store, existing(call.store, cls, self)["host"])
        raise ApiError("NOT_IMPLEMENTED", message)


for _cls in ("PCI", "PGPU"):
    _not_built(f"{_cls}.enable_dom0_access")
    _not_built(f"{_cls}.disable_dom0_access")
