"""The configuration files of a pool's processes, and the seed of its database, all derived from the plan."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from pool import toml
from pool.plan import SIMULATED, Host, Plan, runtime, socket_path
from pool.programs import STAGES, Program, config_file
from pool.roles import role_file
from pool.service_tools import run_module
from shared import driver_view

KVM_VERDICT = Path(__file__).parent.parent / ".cache" / "kvm-verdict"
"""Whether this machine's KVM runs a guest: found out once for all hosts and pools of this folder."""

_DRIVERS_PLUGINS: Final = Path(__file__).parents[1] / "services" / "storage" / "smapiv1" / "shims" / "plugins"
"""What storage drivers call on hosts."""


class OptionsError(Exception):
    """A file of the pool's owner cannot be used; the text says which one and why."""


BARE_NICS = 4
"""Simulated network cards of a host of a bare pool, as many as the conformance corpus expects."""


@dataclass(frozen=True)
class Guest:
    """Files of the bundled guest; "" where no machine reads them."""

    kernel: str = ""
    ramdisk: str = ""
    args: str = ""


@dataclass(frozen=True)
class Place:
    """One group of processes."""

    directory: Path
    plan: Plan
    group: str
    hosts: list[Host]

    @property
    def begins(self) -> bool:
        """The new pool's first coordinator is here."""
        return self.plan.first_coordinator in self.hosts

    @property
    def role_file(self) -> str:
        return str(role_file(self.directory, self.group))

    @property
    def shared(self) -> bool:
        """Its processes serve several hosts, none of which is this machine."""
        return self.group == SIMULATED

    @property
    def backend(self) -> str:
        return self.hosts[0].backend


def users_file(directory: Path) -> Path:
    """Whose passwords the API accepts (`shared.passwords`)."""
    return directory / "users"


def pool_secret_file(directory: Path, group: str) -> Path:
    """What the hosts of that group know each other by (`shared.pool_secret`)."""
    return directory / group / "pool-secret"


def run_folder(directory: Path, group: str) -> Path:
    """Sockets and pid files of that group's guests."""
    return runtime(directory) / group / "run"


def seed_file(directory: Path, plan: Plan) -> Path:
    return directory / plan.first_coordinator.name / "db" / "seed.json"


def _api(place: Place) -> dict[str, Any]:
    return {
        "role_file": place.role_file,
        "keeps_database": not place.shared,
        "http_port": place.plan.http_port,
        "https_port": place.plan.https_port,
        "unix_socket": "" if place.shared else str(socket_path(place.directory, place.group)),
        "auth": place.plan.settings.auth,
        "password_file": str(users_file(place.directory)),
        "pam_service": place.plan.settings.pam_service,
        "audit_log": str(place.directory / place.group / "audit.log"),
        "pool_secret_file": str(pool_secret_file(place.directory, place.group)),
        "log_dir": str(place.directory / place.group),
        **_driver_view(place),
    }


def _driver_view(place: Place) -> dict[str, Any]:
    """Processes that serve several hosts are on none of them."""
    if place.shared:
        return {}
    return {
        "driver_view": str(driver_view.namespace(run_folder(place.directory, place.group), place.hosts[0].uuid)),
        "bundled_plugins": str(_DRIVERS_PLUGINS),
    }


def _db(place: Place) -> dict[str, Any]:
    """Only the first coordinator makes the pool; other hosts follow a database."""
    seed = {"seed": str(seed_file(place.directory, place.plan))} if place.begins else {}
    return {"role_file": place.role_file, **seed}


def _storage(place: Place) -> dict[str, Any]:
    """Hosts that share their processes share the first coordinator's socket: calls there are the pool's."""
    home = place.plan.first_coordinator.name if place.shared else place.group
    return {
        "xapi_socket": str(socket_path(place.directory, home)),
        "nbd_certificates": str(place.directory / place.group / "api" / "certificates"),
        "run_dir": str(run_folder(place.directory, place.group)),
    }


def _nothing(_: Place) -> dict[str, Any]:
    return {}


OPTIONS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "api": _api,
    "db": _db,
    "alerts": lambda place: {"role_file": place.role_file},
    "ha": lambda place: {"role_file": place.role_file},
    "storage": _storage,
    "network": lambda place: {} if place.backend == "simulator" else {"prefix": place.hosts[0].device_prefix},
    "vm": lambda place: {
        "backend": place.backend,
        "kvm_verdict": str(KVM_VERDICT),
        "run_dir": str(run_folder(place.directory, place.group)),
    },
}
"""What each service alone is told; those left out need nothing."""


def added_options(directory: Path, service: str) -> dict[str, Any]:
    """What the pool's owner tells that service besides, in `<pool directory>/options/<service>.toml`.

    Raises `OptionsError`.
    """
    path = directory / "options" / f"{service}.toml"
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionsError(f"cannot use {path}: {error}") from error


def check_options(directory: Path) -> None:
    """Looks at all such files. Raises `OptionsError`, also for one that no service will read."""
    services = {service for stage in STAGES for service in stage}
    for path in sorted((directory / "options").glob("*")):
        if path.suffix != ".toml" or path.stem not in services:
            raise OptionsError(f"{path} is of no service: files there are <service>.toml")
        added_options(directory, path.stem)


def document(place: Place, program: Program, bus_url: str) -> dict[str, Any]:
    """The configuration of one process, as `shared.config.Config` reads it. Raises `OptionsError`."""
    derived = OPTIONS.get(program.service, _nothing)(place)
    return {
        "service": program.service,
        "state_dir": str(place.directory / place.group / program.service),
        "pool": place.plan.uuid,
        "bus": {"url": bus_url},
        "hosts": [
            {"uuid": host.uuid, "name": host.name, "address": host.address, "simulated": host.backend == "simulator"}
            for host in place.hosts
        ],
        "options": {**derived, **added_options(place.directory, program.service)},
    }


def write(directory: Path, plan: Plan, listed: list[Program], bus_url: str) -> None:
    """All configuration files. They hold the broker's password, so only their owner can read them.

    Raises `OptionsError`.
    """
    places = {group: Place(directory, plan, group, hosts) for group, hosts in plan.groups()}
    for program in listed:
        path = config_file(directory, program.group, program.service)
        path.parent.mkdir(parents=True, exist_ok=True)
        socket_path(directory, program.group).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(path, toml.dumps(document(places[program.group], program, bus_url)))


def seed(plan: Plan, guest: Guest) -> dict[str, Any]:
    """What the database holds when it is made (`services.db.seed`)."""
    return {
        "pool": {"uuid": plan.uuid, "name_label": plan.name_label},
        "hosts": [
            {
                "uuid": host.uuid,
                "name": host.name,
                "address": host.address,
                "simulated": host.backend == "simulator",
                "coordinator": host.coordinator,
                "backend": host.backend,
                "nics": BARE_NICS if plan.settings.bare and host.backend == "simulator" else 1,
            }
            for host in plan.hosts
        ],
        "sr": msgspec.to_builtins(plan.sr),
        "network": {
            "uuid": plan.network.uuid,
            "name_label": plan.network.name_label,
            "bridge": plan.network.bridge,
        },
        "templates": not plan.settings.bare,
        "guest": {"kernel": guest.kernel, "ramdisk": guest.ramdisk, "args": guest.args},
    }


def write_seed(directory: Path, plan: Plan, guest: Guest) -> None:
    """With it, the default SR's folder. Raises `ModuleFailed`."""
    sr = plan.sr
    if sr is not None:
        run_module("services.storage.create", "--uuid", sr.uuid, "--name", sr.name_label, "--location", sr.location)
    path = seed_file(directory, plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_private(path, json.dumps(seed(plan, guest), indent=2) + "\n")


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
