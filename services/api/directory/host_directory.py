"""External authentication of one host: its plug-in follows what the host's row says.

Joining and leaving are asked for by the coordinator, which then writes the row; the plug-in that has joined waits until
the row names it. After a start of the process, or on a new configuration, a plug-in is made from the row and what the
host keeps to itself, and initialised until that succeeds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.api.api import Api
from services.api.directory.hooks import AFTER_INITIALIZE, Hooks
from services.api.directory.kept import KeptFile
from services.api.directory.plugin import (
    Plugin,
    ServiceError,
    SubjectNotFound,
    Tag,
    UnknownType,
    api_error,
    is_secret,
    tagged,
)
from services.api.directory.types import Types
from shared import alerts
from shared.bus.contract import Empty
from shared.contracts import directory as contract
from shared.contracts.db import Delta
from shared.errors import ApiError
from shared.store import NULL, Touched

log = logging.getLogger("api.directory")

RETRY: Final = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds between two attempts to initialise; the last for all further ones."""

OVERDUE: Final = 120.0
"""Seconds after which a plug-in that is not initialised is worth an alert, and logins are refused."""

EXIT_PATIENCE: Final = 5.0

_NOT_ASKED: Final = "the directory has not been asked yet"
NOT_INITIALISED: Final = "EXTAUTH_INIT_IN_HOST_FAILED"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a host's row says."""

    auth_type: str
    service_name: str
    configuration: Mapping[str, str] = field(hash=False)


def setup_of(row: Mapping[str, Any]) -> Setup | None:
    """None while external authentication is off."""
    if not row["external_auth_type"]:
        return None
    return Setup(row["external_auth_type"], row["external_auth_service_name"], dict(row["external_auth_configuration"]))


class HostDirectory:
    """`host`: uuid. `retry`, `overdue`: see `RETRY`, `OVERDUE`."""

    def __init__(self, api: Api, host: str, types: Types, kept: KeptFile, hooks: Hooks) -> None:
        self.host = host
        self.retry: tuple[float, ...] = RETRY
        self.overdue = OVERDUE
        self._api = api
        self._types = types
        self._kept = kept
        self._hooks = hooks
        self._candidate: tuple[Setup, Plugin] | None = None
        self._current: tuple[Setup, Plugin] | None = None
        self._ready = False
        self._problem = _NOT_ASKED
        self._seen: Setup | None = None
        self._wake = asyncio.Event()
        self._file_turn = asyncio.Lock()
        self._moved = asyncio.Condition()
        api.replica.watch(self._on_commit)

    @property
    def wanted(self) -> Setup | None:
        """What the host's row says now."""
        store = self._api.store
        row = store.row("host", store.ref_of_uuid("host", self.host) or NULL)
        return setup_of(row) if row is not None else None

    async def plugin(self, patience: float | None = None) -> Plugin:
        """The plug-in, once it is initialised. Raises AUTH_IS_DISABLED; `ServiceError` after `patience` seconds, which
        are as many as until the alert.
        """
        try:
            async with asyncio.timeout(self.overdue if patience is None else patience), self._moved:
                while True:
                    wanted = self.wanted
                    if wanted is None:
                        raise ApiError("AUTH_IS_DISABLED")
                    if self._ready and self._current is not None and self._current[0] == wanted:
                        return self._current[1]
                    await self._moved.wait()
        except TimeoutError as error:
            raise ServiceError(Tag.E_UNAVAILABLE, f"the plug-in is not initialised: {self._problem}") from error

    # ---- what the coordinator asks for

    async def enable(self, request: contract.Enable) -> contract.Configuration:
        """Raises AUTH_UNKNOWN_TYPE [type], AUTH_ENABLE_FAILED... [message]."""
        shown = {key: value for key, value in request.config.items() if not is_secret(key)}
        secrets = {key: value for key, value in request.config.items() if is_secret(key)}
        plugin = self._make(request.auth_type, request.service_name, request.config)
        try:
            await plugin.on_enable(request.config)
            async with self._file_turn:
                await asyncio.to_thread(self._kept.keep_secrets, request.auth_type, request.service_name, secrets)
                await self._offer(Setup(request.auth_type, request.service_name, shown), plugin)
        except ServiceError as error:
            await _exit(plugin)
            raise api_error("AUTH_ENABLE_FAILED", error) from error
        except (SubjectNotFound, OSError, ValueError) as error:
            await _exit(plugin)
            raise ApiError("AUTH_ENABLE_FAILED", error) from error
        return contract.Configuration(configuration=shown)

    async def disable(self, request: contract.Disable) -> Empty:
        """Raises AUTH_DISABLE_FAILED... [message]. Has no effect if the host is in no directory."""
        candidate, self._candidate = self._candidate, None
        joined = candidate or self._current
        setup = self.wanted
        made: Plugin | None = None
        try:
            if joined is None and setup is not None:
                made = await self._made(setup)
            plugin = joined[1] if joined is not None else made
            if plugin is not None:
                await plugin.on_disable(request.config)
        except ServiceError as error:
            raise api_error("AUTH_DISABLE_FAILED", error) from error
        finally:
            for used in (candidate[1] if candidate is not None else None, made):
                if used is not None:
                    await _exit(used)
        self._wake.set()
        return Empty()

    async def set_ldaps(self, request: contract.SetLdaps) -> contract.Configuration:
        """Raises AUTH_IS_DISABLED; AUTH_SET_LDAPS_FAILED [host, message] or what the catalogue has for the reason."""
        setup = self.wanted
        if setup is None:
            raise ApiError("AUTH_IS_DISABLED")
        try:
            plugin = await self._made(setup)
            try:
                changed = await plugin.set_ldaps(request.ldaps, request.force)
            finally:
                await _exit(plugin)
        except ServiceError as error:
            code = tagged("AUTH_SET_LDAPS_FAILED", error)
            if code != "AUTH_SET_LDAPS_FAILED":
                raise ApiError(code, error.message) from error
            ref = self._api.store.ref_of_uuid("host", self.host) or NULL
            raise ApiError(code, ref, error.message) from error
        return contract.Configuration(configuration={**setup.configuration, **changed})

    async def _offer(self, setup: Setup, plugin: Plugin) -> None:
        """For when the row names it."""
        former, self._candidate = self._candidate, (setup, plugin)
        if former is not None:
            await _exit(former[1])
        self._wake.set()

    def _make(self, auth_type: str, service_name: str, config: Mapping[str, str]) -> Plugin:
        try:
            return self._types.make(auth_type, service_name, config)
        except UnknownType as error:
            raise ApiError("AUTH_UNKNOWN_TYPE", auth_type) from error

    # ---- following the row

    def _on_commit(self, touched: list[Touched], _: Delta | None) -> None:
        if any(item.cls == "host" and item.row.fields["uuid"] == self.host for item in touched):
            seen, self._seen = self._seen, self.wanted
            if seen != self._seen:
                self._wake.set()

    async def run(self) -> None:
        """Until the service stops."""
        await self._api.replica.wait_ready()
        try:
            while True:
                self._wake.clear()
                wanted = self.wanted
                if wanted != (self._current[0] if self._current is not None else None):
                    await self._switch(wanted)
                if wanted is None:
                    await self._forget()
                if wanted is not None and not self._ready:
                    await self._initialise(wanted)
                else:
                    await self._wake.wait()
        finally:
            for _, plugin in filter(None, (self._current, self._candidate)):
                await _exit(plugin)

    async def _switch(self, wanted: Setup | None) -> None:
        former, self._current, self._ready = self._current, None, False
        self._problem = _NOT_ASKED
        if former is not None:
            await _exit(former[1])
        candidate = self._candidate
        if wanted is not None and candidate is not None and candidate[0] == wanted:
            self._candidate, self._current, self._ready = None, candidate, True
        await self._tell()

    async def _forget(self) -> None:
        """Secrets of a directory that the host is not in any more."""
        async with self._file_turn:
            if self._candidate is None:
                try:
                    await asyncio.to_thread(self._kept.forget_secrets)
                except (OSError, ValueError) as error:
                    log.error("the secrets of a directory are still in a file: %s", error)

    async def _tell(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def _initialise(self, setup: Setup) -> None:
        """Tries until it succeeds or the row says something else."""
        began, told = time.monotonic(), False
        for attempt in range(1 << 30):
            try:
                plugin = await self._initialised(setup)
            except ServiceError as error:
                if error.message != self._problem:
                    self._problem = error.message
                    log.warning("the directory %s is not initialised: %s", setup.service_name, error.message)
            else:
                self._current, self._ready = (setup, plugin), True
                await self._tell()
                await self._hooks.run(AFTER_INITIALIZE, self.host, setup.auth_type, setup.service_name)
                return
            pause = self.retry[min(attempt, len(self.retry) - 1)]
            overdue = began + self.overdue - time.monotonic()
            if not told and overdue <= 0:
                told = True
                await self._alert(setup)
            await self._awake(pause if told else min(pause, overdue))
            if self.wanted != setup:
                return

    async def _initialised(self, setup: Setup) -> Plugin:
        plugin = await self._made(setup)
        try:
            await plugin.on_xapi_initialize(await asyncio.to_thread(self._kept.is_new_boot))
            await asyncio.to_thread(self._kept.note_boot)
        except (OSError, ValueError) as error:
            await _exit(plugin)
            raise ServiceError(Tag.E_GENERIC, str(error)) from error
        except BaseException:
            await _exit(plugin)
            raise
        return plugin

    async def _made(self, setup: Setup) -> Plugin:
        try:
            secrets = await asyncio.to_thread(self._kept.secrets, setup.auth_type, setup.service_name)
            return self._types.make(setup.auth_type, setup.service_name, {**setup.configuration, **secrets})
        except UnknownType as error:
            raise ServiceError(Tag.E_GENERIC, f"this host has no plug-in for {setup.auth_type}") from error
        except (OSError, ValueError) as error:
            raise ServiceError(Tag.E_GENERIC, str(error)) from error

    async def _awake(self, seconds: float) -> None:
        """Until the row changes or the time has passed."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _alert(self, setup: Setup) -> None:
        body = f"{setup.auth_type} {setup.service_name}: {self._problem}"
        await alerts.publish(self._api.bus, alerts.new(NOT_INITIALISED, 2, "Host", self.host, body))


async def _exit(plugin: Plugin) -> None:
    """It is over for the plug-in, whatever it says."""
    try:
        async with asyncio.timeout(EXIT_PATIENCE):
            await plugin.on_xapi_exit()
    except (ServiceError, TimeoutError) as error:
        log.warning("a directory plug-in does not end well: %s", error or "it takes too long")
