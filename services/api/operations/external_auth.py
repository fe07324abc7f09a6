"""Messages that switch external authentication on and off, for a host or for all of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.directory import hooks
from services.api.directory.host_directory import Setup, setup_of
from services.api.operation import operation
from services.api.subcalls import perform
from shared import alerts
from shared.bus.interface import HostOffline
from shared.contracts import directory as contract
from shared.contracts.alerts import Alert
from shared.contracts.db import Update
from shared.datamodel.errors import CATALOGUE
from shared.errors import ApiError

log = logging.getLogger("api.directory")

OFF: Final[Mapping[str, Any]] = {
    "external_auth_type": "",
    "external_auth_service_name": "",
    "external_auth_configuration": {},
}
"""Of a host's row."""

NON_HOMOGENEOUS: Final = "EXTAUTH_IN_POOL_IS_NON_HOMOGENEOUS"


# ---- one host


@operation("host.enable_external_auth", forwarded=True)
async def host_enable(call: Call, host: str, config: dict[str, str], service_name: str, auth_type: str) -> None:
    """Raises AUTH_UNKNOWN_TYPE, AUTH_ALREADY_ENABLED, AUTH_ENABLE_FAILED and its variants."""
    if not auth_type:
        raise ApiError("AUTH_UNKNOWN_TYPE", auth_type)
    async with _turn(call, host):
        setup = _setup(call, host)
        if setup is not None:
            raise ApiError("AUTH_ALREADY_ENABLED", setup.auth_type, setup.service_name)
        request = contract.Enable(auth_type=auth_type, service_name=service_name, config=config)
        call.undo.append(lambda: _leave(call, host, config))
        try:
            joined = await call.api.bus.call(contract.ENABLE, request, host=_uuid(call, host))
        except HostOffline:
            call.undo.pop()  # it has not heard of it
            raise
        fields = {
            "external_auth_type": auth_type,
            "external_auth_service_name": service_name,
            "external_auth_configuration": joined.configuration,
        }
        await call.transact([Update(cls="host", ref=host, fields=fields)])
    call.api.directory.hooks.begin_on(hooks.AFTER_ENABLE, _uuid(call, host), auth_type, service_name)


@operation("host.disable_external_auth", forwarded=True)
async def host_disable(call: Call, host: str, config: dict[str, str], force: bool = False) -> None:
    """A host that cannot leave its directory stays in it, unless forced. Raises AUTH_DISABLE_FAILED, its variants."""
    async with _turn(call, host):
        setup = _setup(call, host)
        if setup is None:
            return
        uuid_ = _uuid(call, host)
        await call.api.directory.hooks.run_on(hooks.BEFORE_DISABLE, uuid_, setup.auth_type, setup.service_name)
        try:
            await _leave(call, host, config)
        except ApiError as error:
            if not force:
                raise
            log.warning("host %s leaves its directory by force: %s", uuid_, error)
        await call.transact([Update(cls="host", ref=host, fields=dict(OFF))])


@operation("host.external_auth_set_ldaps", forwarded=True)
async def host_set_ldaps(call: Call, host: str, ldaps: bool, force: bool) -> None:
    """Raises AUTH_IS_DISABLED, AUTH_SET_LDAPS_FAILED and what else is wrong with TLS."""
    async with _turn(call, host):
        if _setup(call, host) is None:
            raise ApiError("AUTH_IS_DISABLED")
        request = contract.SetLdaps(ldaps=ldaps, force=force)
        changed = await call.api.bus.call(contract.SET_LDAPS, request, host=_uuid(call, host))
        fields = {"external_auth_configuration": changed.configuration}
        await call.transact([Update(cls="host", ref=host, fields=fields)])


def _turn(call: Call, host: str) -> Any:
    """One change at a time of a host's authentication."""
    return call.api.turns.of(("external_auth", host))


def _setup(call: Call, host: str) -> Setup | None:
    return setup_of(existing(call.store, "host", host))


def _uuid(call: Call, host: str) -> str:
    return call.api.uuid_of("host", host)


async def _leave(call: Call, host: str, config: dict[str, str]) -> None:
    await call.api.bus.call(contract.DISABLE, contract.Disable(config=config), host=_uuid(call, host))


# ---- all hosts


@operation("pool.enable_external_auth")
async def pool_enable(call: Call, pool: str, config: dict[str, str], service_name: str, auth_type: str) -> None:
    """One host after the other; if one cannot, those that have are taken back.

    Raises POOL_AUTH_ALREADY_ENABLED [host], AUTH_UNKNOWN_TYPE [type], POOL_AUTH_ENABLE_FAILED and its variants
    [host, message].
    """
    existing(call.store, "pool", pool)
    async with _turn(call, pool):
        hosts = _hosts(call)
        for host in hosts:
            if _setup(call, host) is not None:
                raise ApiError("POOL_AUTH_ALREADY_ENABLED", host)
        done: list[str] = []
        for host in hosts:
            try:
                await perform(call, "host.enable_external_auth", host, config, service_name, auth_type)
            except BaseException as error:  # cancelled, too: a pool is in a directory as a whole or not at all
                call.undo += [_taking_back(call, one, config) for one in done]
                if isinstance(error, ApiError):
                    raise _of_pool("POOL_AUTH_ENABLE_FAILED", host, error) from error
                raise
            done.append(host)


@operation("pool.disable_external_auth")
async def pool_disable(call: Call, pool: str, config: dict[str, str]) -> None:
    """Every host is tried; those that have left stay out. Raises POOL_AUTH_DISABLE_FAILED and its variants
    [host, message] for the first that could not.
    """
    existing(call.store, "pool", pool)
    failed: list[ApiError] = []
    async with _turn(call, pool):
        for host in _hosts(call):
            if _setup(call, host) is None:
                continue
            try:
                await perform(call, "host.disable_external_auth", host, config, False)
            except ApiError as error:
                log.warning("host %s does not leave its directory: %s", _uuid(call, host), error)
                failed.append(_of_pool("POOL_AUTH_DISABLE_FAILED", host, error))
    if failed:
        raise failed[0]


@operation("pool.external_auth_set_ldaps")
async def pool_set_ldaps(call: Call, pool: str, ldaps: bool, force: bool) -> None:
    """One host after the other; if one cannot, the others go back. Raises AUTH_SET_LDAPS_FAILED [host, message]."""
    existing(call.store, "pool", pool)
    async with _turn(call, pool):
        hosts = _hosts(call)
        if any(_setup(call, host) is None for host in hosts):
            raise ApiError("AUTH_IS_DISABLED")
        for host in hosts:
            before = _configuration(call, host)
            try:
                await perform(call, "host.external_auth_set_ldaps", host, ldaps, force)
            except ApiError as error:
                message = error.params[-1] if error.params else error.code
                raise ApiError("AUTH_SET_LDAPS_FAILED", host, message) from error
            call.on_failure.append(Update(cls="host", ref=host, fields={"external_auth_configuration": before}))


def _configuration(call: Call, host: str) -> dict[str, str]:
    return dict(existing(call.store, "host", host)["external_auth_configuration"])


def _hosts(call: Call) -> list[str]:
    """The coordinator first: what is wrong for all is found out there."""
    master = str(call.api.pool()["master"])
    return [master, *(host for host in call.store.rows("host") if host != master)]


def _taking_back(call: Call, host: str, config: dict[str, str]) -> Any:
    async def take_back() -> None:
        await perform(call, "host.disable_external_auth", host, config, True)

    return take_back


def _of_pool(code: str, host: str, error: ApiError) -> ApiError:
    """A host's error as the pool's: what is wrong with the request stays; the rest names the host."""
    if error.code == "AUTH_UNKNOWN_TYPE":
        return error
    words = error.code.removeprefix(code.removeprefix("POOL_")).removeprefix("AUTH")
    exact = code + words if code + words in CATALOGUE else code
    message = error.params[0] if error.code.startswith("AUTH_") and error.params else str(error)
    return ApiError(exact, host, message)


@operation("pool.detect_nonhomogeneous_external_auth")
def detect_nonhomogeneous(call: Call, pool: str) -> None:
    """An alert for each host that is in another directory than the coordinator."""
    existing(call.store, "pool", pool)
    master, *others = _hosts(call)
    wanted = _setup(call, master)
    for host in others:
        setup = _setup(call, host)
        if _which(setup) != _which(wanted):
            call.alerts.append(_alert(call, host, _which(setup), _which(wanted)))


def _which(setup: Setup | None) -> tuple[str, str]:
    return (setup.auth_type, setup.service_name) if setup is not None else ("", "")


def _alert(call: Call, host: str, theirs: tuple[str, str], ours: tuple[str, str]) -> Alert:
    told = {
        "host_external_auth_type": theirs[0],
        "host_external_auth_service_name": theirs[1],
        "master_external_auth_type": ours[0],
        "master_external_auth_service_name": ours[1],
    }
    body = ", ".join(f"{name}={value}" for name, value in told.items())
    return alerts.new(NON_HOMOGENEOUS, 2, "Host", _uuid(call, host), body)
