"""The report about a host that `/system-status` gives to support: which parts there are, and what is in each.

No part holds a secret: rows are counted, not shown; logs name sessions by their digests.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Final
from xml.sax.saxutils import quoteattr

import psutil

from services.api.api import Api
from services.api.archive import Member
from services.api.exposition import PER_HOST, PER_POOL
from services.api.host_logs import log_files
from shared.bus.contract import Empty, Scope
from shared.contracts import service as contract
from shared.errors import ApiError
from shared.service import VERSION

TIMEOUT: Final = 2.0
"""Seconds that a service gets to tell how it is."""

Collect = Callable[[Api, str], Awaitable[list[Member]]]
"""The files of a part, for the host of that uuid."""


@dataclass(frozen=True, slots=True)
class Part:
    """`personal`: whether people's data may be in it: yes | no | maybe. `largest`: bytes, -1 for no limit."""

    key: str
    personal: str
    largest: int
    collect: Collect


def capabilities() -> str:
    """XML: the parts that can be asked for."""
    lines = [
        f"  <capability key={quoteattr(part.key)} pii={quoteattr(part.personal)} min-size={quoteattr('0')}"
        f" max-size={quoteattr(str(part.largest))} min-time={quoteattr('0')} max-time={quoteattr('30')}"
        f" content-type={quoteattr('text/plain')} default-checked={quoteattr('yes')}/>\n"
        for part in PARTS
    ]
    return f'<?xml version="1.0" ?>\n<system-status-capabilities>\n{"".join(lines)}</system-status-capabilities>\n'


async def collect(api: Api, host: str, wanted: list[str]) -> list[Member]:
    """The files of the report. `wanted`: keys of parts, none for all; what nobody knows is passed over."""
    chosen = [part for part in PARTS if not wanted or part.key in wanted]
    found = [await part.collect(api, host) for part in chosen]
    return [member for members in found for member in members]


def _text(name: str, lines: list[str]) -> list[Member]:
    return [Member(name, "".join(f"{line}\n" for line in lines).encode())]


async def _logs(api: Api, host: str) -> list[Member]:
    return [Member(f"logs/{path.name}", path) for path in await asyncio.to_thread(log_files, api.options.log_dir)]


async def _database(api: Api, host: str) -> list[Member]:
    counts = {name: len(table.rows) for name, table in api.store.tables.items()}
    lines = [f"generation: {api.store.generation}"]
    return _text("database", lines + [f"{name}: {count}" for name, count in sorted(counts.items()) if count])


async def _services(api: Api, host: str) -> list[Member]:
    asked = [_status(api, name, Scope.HOST, host) for name in PER_HOST]
    asked += [_status(api, name, Scope.POOL, None) for name in PER_POOL]
    return _text("services", [line for lines in await asyncio.gather(*asked) for line in lines])


async def _status(api: Api, name: str, scope: Scope, host: str | None) -> list[str]:
    where = "pool" if host is None else "host"
    try:
        found = await api.bus.call(contract.status(name, scope), Empty(), host=host, timeout=TIMEOUT)
    except ApiError as error:
        return [f"{name} ({where}): {error}"]
    age = time.time() - found.started
    told = [f"    {key}: {value}" for key, value in found.details.items()]
    return [f"{name} ({where}): {found.state}, version {found.version}, pid {found.pid}, up {age:.0f} s", *told]


async def _versions(api: Api, host: str) -> list[Member]:
    libraries = sorted(
        f"{found.metadata['Name']} {found.version}"
        for found in await asyncio.to_thread(lambda: [*metadata.distributions()])
    )
    own = [f"toolstack {VERSION}", f"Python {sys.version.split()[0]}", f"kernel {platform.platform()}"]
    return _text("versions", [*own, *libraries])


async def _machine(api: Api, host: str) -> list[Member]:
    return _text("machine", await asyncio.to_thread(_machine_lines))


def _machine_lines() -> list[str]:
    memory = psutil.virtual_memory()
    lines = [
        f"time: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}",
        f"up: {time.time() - psutil.boot_time():.0f} s",
        f"CPUs: {psutil.cpu_count()}",
        f"load: {' '.join(f'{value:.2f}' for value in psutil.getloadavg())}",
        f"memory: {memory.total} bytes, {memory.available} available",
    ]
    for disk in psutil.disk_partitions():
        try:
            usage = psutil.disk_usage(disk.mountpoint)
        except OSError as error:
            lines.append(f"disk {disk.mountpoint}: {error.strerror}")
        else:
            lines.append(f"disk {disk.mountpoint}: {usage.total} bytes, {usage.free} free")
    return lines


async def _processes(api: Api, host: str) -> list[Member]:
    return _text("processes", await asyncio.to_thread(_process_lines))


def _process_lines() -> list[str]:
    """Names and figures, no arguments: those may hold anything."""
    lines = ["pid ppid state resident name"]
    for process in psutil.process_iter(["pid", "ppid", "status", "memory_info", "name"]):
        known = process.info
        resident = known["memory_info"].rss if known["memory_info"] is not None else 0
        lines.append(f"{known['pid']} {known['ppid']} {known['status']} {resident} {known['name']}")
    return lines


PARTS: Final = (
    Part("xapi-logs", "maybe", -1, _logs),
    Part("xapi-database", "no", 65536, _database),
    Part("xapi-services", "no", 65536, _services),
    Part("versions", "no", 65536, _versions),
    Part("machine", "no", 65536, _machine),
    Part("process-list", "no", 1 << 20, _processes),
)
