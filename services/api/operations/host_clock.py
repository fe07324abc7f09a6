"""Messages of class host about its clock."""

from __future__ import annotations

import re
from typing import Final

from services.api import clock
from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.on_hosts import on_host
from services.api.operation import operation
from shared.bus.contract import Empty
from shared.contracts.db import Update
from shared.contracts.host import (
    CLOCK,
    NTP_SERVERS,
    SET_NTP,
    SET_TIME,
    SET_TIME_ZONE,
    TIME_ZONES,
    Name,
    Ntp,
    SetTime,
)
from shared.errors import ApiError

_SERVER: Final = re.compile(r"[A-Za-z0-9:.-]+")


@operation("host.get_servertime")
async def get_servertime(call: Call, host: str) -> str:
    return clock.stamp((await on_host(call, host, CLOCK, Empty())).time)


@operation("host.get_server_localtime")
async def get_server_localtime(call: Call, host: str) -> str:
    return (await on_host(call, host, CLOCK, Empty())).local


@operation("host.set_servertime")
async def set_servertime(call: Call, self: str, value: str) -> None:
    if existing(call.store, "host", self)["ntp_mode"] != "Disabled":
        raise ApiError("NOT_ALLOWED_WHEN_NTP_IS_ENABLED", self)
    await on_host(call, self, SET_TIME, SetTime(time=clock.seconds(value)))


# ---- zones


@operation("host.list_timezones")
async def list_timezones(call: Call, self: str) -> list[str]:
    return (await on_host(call, self, TIME_ZONES, Empty())).names


@operation("host.set_timezone")
async def set_timezone(call: Call, self: str, value: str) -> None:
    if value not in (await on_host(call, self, TIME_ZONES, Empty())).names:
        raise ApiError("INVALID_VALUE", "timezone", value)
    await on_host(call, self, SET_TIME_ZONE, Name(name=value))
    call.on_success.append(Update(cls="host", ref=self, fields={"timezone": value}))


# ---- time servers


@operation("host.get_ntp_synchronized")
async def get_ntp_synchronized(call: Call, self: str) -> bool:
    return (await on_host(call, self, CLOCK, Empty())).synchronized


@operation("host.get_ntp_servers_status")
async def get_ntp_servers_status(call: Call, self: str) -> dict[str, str]:
    return (await on_host(call, self, NTP_SERVERS, Empty())).status


@operation("host.set_ntp_mode", forwarded=True)
async def set_ntp_mode(call: Call, self: str, value: str) -> None:
    row = existing(call.store, "host", self)
    if row["ntp_mode"] == value:
        return
    servers = row["ntp_custom_servers"]
    if value == "Custom" and not servers:
        raise ApiError("INVALID_NTP_CONFIG", "there are no custom servers")
    await on_host(call, self, SET_NTP, Ntp(mode=value, servers=servers if value == "Custom" else []))
    call.on_success.append(Update(cls="host", ref=self, fields={"ntp_mode": value}))


@operation("host.set_ntp_custom_servers", forwarded=True)
async def set_ntp_custom_servers(call: Call, self: str, value: list[str]) -> None:
    """They are asked in mode Custom only."""
    mode = existing(call.store, "host", self)["ntp_mode"]
    for server in value:
        if not _SERVER.fullmatch(server):
            raise ApiError("INVALID_VALUE", "ntp_custom_servers", server)
    if mode == "Custom":
        if not value:
            raise ApiError("INVALID_NTP_CONFIG", "mode Custom needs at least one server")
        await on_host(call, self, SET_NTP, Ntp(mode=mode, servers=value))
    call.on_success.append(Update(cls="host", ref=self, fields={"ntp_custom_servers": list(dict.fromkeys(value))}))
