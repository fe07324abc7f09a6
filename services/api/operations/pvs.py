"""Messages of the PVS classes: disk streaming with a proxy in Open vSwitch, which no host here uses."""

from __future__ import annotations

from typing import Any

from services.api.call import Call
from services.api.operation import operation
from shared.errors import ApiError


def _needs_open_vswitch(message: str) -> None:
    @operation(message, built=False)
    def refuse(call: Call, *arguments: Any) -> str:
        raise ApiError("OPENVSWITCH_NOT_ACTIVE")


for _cls in ("PVS_site", "PVS_server"):
    _needs_open_vswitch(f"{_cls}.introduce")
