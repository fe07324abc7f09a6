"""VIF messages that change a VIF's network, addresses and locking. One that is in use would have to follow at once,
which its host cannot do yet: then they are refused.
"""

from __future__ import annotations

from typing import Any

from services.api.call import Call
from services.api.decisions import addresses, features, open_vswitch, pif_rules
from services.api.decisions.rows import Record, existing
from services.api.operation import operation
from shared.contracts.db import Change, SetAdd, SetDrop, Update
from shared.errors import ApiError

HIGHEST_VLAN = 4094


async def _write(call: Call, vif: str, change: Change) -> None:
    """Raises NOT_IMPLEMENTED for a VIF that a VM uses now."""
    row = existing(call.store, "VIF", vif)
    if row["currently_attached"] and existing(call.store, "VM", row["VM"])["power_state"] != "Suspended":
        raise ApiError("NOT_IMPLEMENTED", f"{call.message.wire_name} of an attached VIF")
    await call.transact([change])


def _update(vif: str, **fields: Any) -> Change:
    return Update(cls="VIF", ref=vif, fields=fields)


@operation("VIF.move")
async def move(call: Call, self: str, network: str) -> None:
    trunks = existing(call.store, "VIF", self)["trunks"]
    existing(call.store, "network", network)
    if trunks:
        pif_rules.no_vlan_under(call.store, network)
    await _write(call, self, _update(self, network=network))


# ---- which addresses it may use


def _locking_mode(call: Call, vif: Record, mode: str) -> str:
    if mode == "network_default":
        mode = existing(call.store, "network", vif["network"])["default_locking_mode"]
    return mode


def _require_locking(call: Call) -> None:
    """Raises LICENCE_RESTRICTION."""
    features.require(call.store, "vif_locking", "VIFLock")


@operation("VIF.set_locking_mode")
async def set_locking_mode(call: Call, self: str, value: str) -> None:
    if _locking_mode(call, existing(call.store, "VIF", self), value) == "locked":
        if call.store.rows("SDN_controller") and open_vswitch.is_used(call.store):
            raise ApiError("OPERATION_NOT_ALLOWED", "a controller of the virtual switches is active")
        _require_locking(call)
    await _write(call, self, _update(self, locking_mode=value))


def _allowed_addresses(version: int) -> None:
    field = f"ipv{version}_allowed"

    def check(call: Call, vif: str, values: list[str]) -> None:
        existing(call.store, "VIF", vif)
        if values:
            _require_locking(call)
        if not all(addresses.is_address(value, version) for value in values):
            raise ApiError("INVALID_IP_ADDRESS_SPECIFIED", field)

    @operation(f"VIF.set_{field}")
    async def set_allowed(call: Call, self: str, value: list[str]) -> None:
        check(call, self, value)
        await _write(call, self, _update(self, **{field: list(dict.fromkeys(value))}))

    @operation(f"VIF.add_{field}")
    async def add(call: Call, self: str, value: str) -> None:
        check(call, self, [value])
        await _write(call, self, SetAdd(cls="VIF", ref=self, field=field, value=value))

    @operation(f"VIF.remove_{field}")
    async def remove(call: Call, self: str, value: str) -> None:
        await _write(call, self, SetDrop(cls="VIF", ref=self, field=field, value=value))


for _version in (4, 6):
    _allowed_addresses(_version)


# ---- which address the guest takes


def _check_address(call: Call, vif: Record, version: int, address: str, gateway: str) -> None:
    features.require(call.store, "guest_ip_setting", "GuestIP")
    if not addresses.is_cidr(address, version):
        raise ApiError("INVALID_CIDR_ADDRESS_SPECIFIED", "address")
    allowed = vif[f"ipv{version}_allowed"]
    if _locking_mode(call, vif, vif["locking_mode"]) == "locked" and address.partition("/")[0] not in allowed:
        raise ApiError("ADDRESS_VIOLATES_LOCKING_CONSTRAINT", address)
    if gateway and not addresses.is_address(gateway, version):
        raise ApiError("INVALID_IP_ADDRESS_SPECIFIED", "gateway")


def _configure(version: int) -> None:
    @operation(f"VIF.configure_ipv{version}")
    async def configure(call: Call, self: str, mode: str, address: str, gateway: str) -> None:
        """For a guest whose agent has said that it can; it follows at the next start."""
        row = existing(call.store, "VIF", self)
        if mode == "Static":
            _check_address(call, row, version, address, gateway)
        metrics = call.store.row("VM_guest_metrics", existing(call.store, "VM", row["VM"])["guest_metrics"])
        if metrics is None or metrics["other"].get("feature-static-ip-setting") != "1":
            raise ApiError("VM_LACKS_FEATURE", row["VM"])
        ip = f"ipv{version}"
        fields = {f"{ip}_configuration_mode": mode, f"{ip}_addresses": [address], f"{ip}_gateway": gateway}
        await _write(call, self, _update(self, **fields))


for _version in (4, 6):
    _configure(_version)


# ---- VLANs that it carries


def _check_tag(tag: int) -> None:
    if not 0 <= tag <= HIGHEST_VLAN:
        raise ApiError("VLAN_TAG_INVALID", tag)


@operation("VIF.set_trunks")
async def set_trunks(call: Call, self: str, value: list[int]) -> None:
    row = existing(call.store, "VIF", self)
    if value:
        pif_rules.no_vlan_under(call.store, row["network"])
    for tag in value:
        _check_tag(tag)
    await _write(call, self, _update(self, trunks=list(dict.fromkeys(value))))


@operation("VIF.add_trunks")
async def add_trunks(call: Call, self: str, value: int) -> None:
    row = existing(call.store, "VIF", self)
    _check_tag(value)
    pif_rules.no_vlan_under(call.store, row["network"])
    if value not in row["trunks"]:
        await _write(call, self, _update(self, trunks=[value, *row["trunks"]]))


@operation("VIF.remove_trunks")
async def remove_trunks(call: Call, self: str, value: int) -> None:
    trunks: list[int] = existing(call.store, "VIF", self)["trunks"]
    if value in trunks:
        await _write(call, self, _update(self, trunks=[trunk for trunk in trunks if trunk != value]))
