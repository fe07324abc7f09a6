"""VIF messages that change a VIF's network, addresses and locking. An attached VIF would have to follow at once, which
its host cannot do yet: then they are refused.
"""

from __future__ import annotations

from typing import Any

from services.api.call import Call
from services.api.decisions import addresses
from services.api.decisions.rows import Record, existing
from services.api.operation import operation
from shared.contracts.db import Change, SetAdd, SetDrop, Update
from shared.errors import ApiError


def _detached(call: Call, vif: str) -> Record:
    row = existing(call.store, "VIF", vif)
    if row["currently_attached"]:
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} of an attached VIF")
    return row


@operation("VIF.move")
async def move(call: Call, self: str, network: str) -> None:
    existing(call.store, "VIF", self)
    existing(call.store, "network", network)
    _detached(call, self)
    await call.transact([Update(cls="VIF", ref=self, fields={"network": network})])


@operation("VIF.set_locking_mode")
async def set_locking_mode(call: Call, self: str, value: str) -> None:
    _detached(call, self)
    await call.transact([Update(cls="VIF", ref=self, fields={"locking_mode": value})])


def _allowed_addresses(version: int) -> None:
    field = f"ipv{version}_allowed"

    def check(values: list[str]) -> None:
        if not all(addresses.is_address(value, version) for value in values):
            raise ApiError("INVALID_IP_ADDRESS_SPECIFIED", field)

    async def write(call: Call, vif: str, change: Change) -> None:
        _detached(call, vif)
        await call.transact([change])

    @operation(f"VIF.set_{field}")
    async def set_allowed(call: Call, self: str, value: list[str]) -> None:
        check(value)
        await write(call, self, Update(cls="VIF", ref=self, fields={field: list(dict.fromkeys(value))}))

    @operation(f"VIF.add_{field}")
    async def add(call: Call, self: str, value: str) -> None:
        check([value])
        await write(call, self, SetAdd(cls="VIF", ref=self, field=field, value=value))

    @operation(f"VIF.remove_{field}")
    async def remove(call: Call, self: str, value: str) -> None:
        await write(call, self, SetDrop(cls="VIF", ref=self, field=field, value=value))


for _version in (4, 6):
    _allowed_addresses(_version)


def _configure(version: int) -> None:
    @operation(f"VIF.configure_ipv{version}")
    def configure(call: Call, self: str, mode: str, address: str, gateway: str) -> None:
        """Asks the guest to take an address; no guest can be asked yet."""
        row = existing(call.store, "VIF", self)
        if mode == "Static":
            if not addresses.is_cidr(address, version):
                raise ApiError("INVALID_CIDR_ADDRESS_SPECIFIED", "address")
            if gateway and not addresses.is_address(gateway, version):
                raise ApiError("INVALID_IP_ADDRESS_SPECIFIED", "gateway")
        metrics = call.store.row("VM_guest_metrics", existing(call.store, "VM", row["VM"])["guest_metrics"])
        if metrics is None or metrics["other"].get("feature-static-ip-setting") != "1":
            raise ApiError("VM_LACKS_FEATURE", row["VM"])
        raise ApiError("NOT_IMPLEMENTED", call.message.wire_name)


for _version in (4, 6):
    _configure(_version)


@operation("VIF.set_trunks")
async def set_trunks(call: Call, self: str, value: list[int]) -> None:
    await _set_trunks(call, self, value)


@operation("VIF.add_trunks")
async def add_trunks(call: Call, self: str, value: int) -> None:
    trunks: list[int] = existing(call.store, "VIF", self)["trunks"]
    await _set_trunks(call, self, [value, *trunks])


@operation("VIF.remove_trunks")
async def remove_trunks(call: Call, self: str, value: int) -> None:
    trunks: list[int] = existing(call.store, "VIF", self)["trunks"]
    await _set_trunks(call, self, [trunk for trunk in trunks if trunk != value])


async def _set_trunks(call: Call, vif: str, trunks: list[Any]) -> None:
    row = existing(call.store, "VIF", vif)
    for trunk in trunks:
        if not 0 <= trunk < 4096:
            raise ApiError("INVALID_VALUE", "trunks", trunk)
    if row["currently_attached"]:
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} of an attached VIF")
    await call.transact([Update(cls="VIF", ref=vif, fields={"trunks": list(dict.fromkeys(trunks))})])
