"""What a pool consists of: decided once, at its first start, kept in `<pool directory>/pool.json`.

Everything else (processes, their configuration, the seed of the database) derives from it: see `programs` and
`configuration`.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

Backend = Literal["qemu", "simulator"]
Auth = Literal["file", "pam"]
SIMULATED = "simulated"
"""Name of the group of processes that all simulated hosts share."""
SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path (sun_path, less its NUL)."""
_LONGEST_SOCKET = f"{SIMULATED}/run/sm/00000000/run/blktap-control/nbd1000000000.1000"


class PlanError(Exception):
    """The options cannot be used; the text says which one and what to do."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asked for. None: not said, so what the pool has already, else the default."""

    hosts: int | None = None
    simulate: int | None = None
    backend: str | None = None
    base_address: str | None = None
    simulated_address: str | None = None
    http_port: int | None = None
    https_port: int | None = None
    bare: bool | None = None
    auth: str | None = None
    pam_service: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The same, all said. `bare`: made without an SR and without templates.

    `auth`: who checks passwords, the pool's own file or PAM under the name `pam_service`.
    """

    hosts: int
    simulate: int
    backend: Backend
    base_address: str
    simulated_address: str
    http_port: int
    https_port: int
    bare: bool = False
    auth: Auth = "file"
    pam_service: str = "xapi"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    name: str
    address: str
    backend: Backend
    coordinator: bool = False
    """The first one; it may become another."""
    simulated: bool = False
    """Shares its processes with other hosts and has no machine behind it."""

    @property
    def device_prefix(self) -> str:
        """Begins the names of its bridges and taps, which share a kernel with those of other hosts and pools."""
        return "x" + base64.b32encode(hashlib.sha256(self.uuid.encode()).digest()).decode().lower()[:5]


class Sr(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    name_label: str
    type: str
    location: str


class Network(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    name_label: str
    bridge: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`version`: of this file's layout. `settings`: the options it was made from."""

    version: int = 1
    uuid: str
    name_label: str
    settings: Settings
    hosts: list[Host]
    sr: Sr | None
    network: Network

    @property
    def http_port(self) -> int:
        return self.settings.http_port

    @property
    def https_port(self) -> int:
        return self.settings.https_port

    @property
    def first_coordinator(self) -> Host:
        """Of the new pool. Who is it now: `pool.roles`."""
        return next(host for host in self.hosts if host.coordinator)

    def url(self, host: Host) -> str:
        port = "" if self.http_port == 80 else f":{self.http_port}"
        return f"http://{host.address}{port}"

    def groups(self) -> Iterator[tuple[str, list[Host]]]:
        """Groups of processes: each host its own, the simulated ones together. Their names are folders."""
        for host in self.hosts:
            if not host.simulated:
                yield host.name, [host]
        if simulated := [host for host in self.hosts if host.simulated]:
            yield SIMULATED, simulated


def defaults(*, root: bool, qemu: bool) -> Settings:
    """What a pool is when nothing is said. `qemu`: whether the emulator is installed."""
    return Settings(
        hosts=3,
        simulate=0,
        backend="qemu" if qemu else "simulator",
        base_address="127.0.0.11",
        simulated_address="127.0.1.1",
        http_port=80 if root else 8080,
        https_port=443 if root else 8443,
    )


def make(directory: Path, wanted: Wanted, default: Settings) -> Plan:
    """A new pool. Raises `PlanError`."""
    settings = _merge(wanted, default)
    _check(settings)
    hosts = [
        Host(uuid=_uuid(), name=f"host{number}", address=address, backend=settings.backend, coordinator=number == 1)
        for number, address in enumerate(_addresses("--base-address", settings.base_address, settings.hosts), 1)
    ]
    hosts += [
        Host(uuid=_uuid(), name=f"sim{number}", address=address, backend="simulator", simulated=True)
        for number, address in enumerate(
            _addresses("--simulated-address", settings.simulated_address, settings.simulate), 1
        )
    ]
    addresses = [host.address for host in hosts]
    if len(set(addresses)) < len(addresses):
        raise PlanError("the hosts' addresses and the simulated ones overlap: choose another --simulated-address")
    return Plan(
        uuid=_uuid(),
        name_label="pool",
        settings=settings,
        hosts=hosts,
        sr=None if settings.bare else _default_sr(directory),
        network=Network(uuid=_uuid(), name_label="Pool-wide network associated with eth0", bridge="xenbr0"),
    )


def load(directory: Path) -> Plan | None:
    """The pool kept in that folder. Raises `PlanError` when its file cannot be read."""
    path = directory / "pool.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise PlanError(f"cannot read {path}: {error}. `make pool-clean` removes the pool") from error


def save(directory: Path, plan: Plan) -> None:
    new = directory / "pool.json.new"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(plan)) + b"\n")
    new.replace(directory / "pool.json")


def differs(kept: Plan, wanted: Wanted) -> list[str]:
    """What was asked for and is not what the pool has, in the options' words."""
    return [
        f"{name.upper()}={value} (it has {getattr(kept.settings, name)})"
        for name, value in msgspec.structs.asdict(wanted).items()
        if value is not None and value != getattr(kept.settings, name)
    ]


def runtime(directory: Path) -> Path:
    """Where the pool's sockets are: in its folder, or if that has too long a path, in one of the system's."""
    if len(os.fsencode(directory / _LONGEST_SOCKET)) <= SOCKET_PATH_LIMIT:
        return directory
    name = f"xapi-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"
    if os.geteuid() == 0:
        return Path("/run") / name
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / name


def socket_path(directory: Path, host: str) -> Path:
    """Where that host's `xe` finds its API without a password."""
    return runtime(directory) / host / "xapi.sock"


def _merge(wanted: Wanted, default: Settings) -> Settings:
    given = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
    try:
        return msgspec.convert({**msgspec.structs.asdict(default), **given}, Settings)
    except msgspec.ValidationError as error:
        raise PlanError(f"unsupported option: {error}") from error


def _check(wanted: Settings) -> None:
    if not 1 <= wanted.hosts <= 64:
        raise PlanError(f"HOSTS={wanted.hosts} is not between 1 and 64 (SIMULATE=N makes more, in few processes)")
    if not 0 <= wanted.simulate <= 1000:
        raise PlanError(f"SIMULATE={wanted.simulate} is not between 0 and 1000")
    for name, port in (("--http-port", wanted.http_port), ("--https-port", wanted.https_port)):
        if not 1 <= port <= 65535:
            raise PlanError(f"{name} {port} is not a port")
    if wanted.http_port == wanted.https_port:
        raise PlanError("--http-port and --https-port must differ")


def _addresses(option: str, first: str, count: int) -> list[str]:
    """`count` addresses from `first` on, without those ending in .0 and .255."""
    try:
        address = ipaddress.IPv4Address(first)
    except ValueError as error:
        raise PlanError(f"{option}: {error}") from error
    if not address.is_loopback:
        raise PlanError(f"{option} {first} is not a loopback address (127.0.0.0/8)")
    found: list[str] = []
    while len(found) < count:
        if not address.is_loopback:
            raise PlanError(f"{option} {first} leaves no room for {count} hosts")
        if int(address) & 0xFF not in (0, 255):
            found.append(str(address))
        address += 1
    return found


def _default_sr(directory: Path) -> Sr:
    return Sr(uuid=_uuid(), name_label="Local files", type="file", location=str(directory / "sr"))


def _uuid() -> str:
    return str(uuid.uuid4())
