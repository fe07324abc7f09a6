"""Serves `shared.contracts.host` for every host of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, Protocol

from services.api.api import Api
from services.api.decisions import host_devices
from services.api.edge.tls import Certificates, Shown
from services.api.host_side import devices, diagnostics, ssh_expiry
from services.api.host_side.agent import Agent
from services.api.host_side.certificate_rows import differing
from services.api.host_side.machine import Machine, time_zone
from services.api.host_side.outgoing import Outgoing
from services.api.host_side.plugins import Programs
from services.api.host_side.report import upload
from services.api.host_side.trust import TrustFolder
from shared.bus.contract import Empty
from shared.bus.interface import BusError
from shared.config import ConfigError, HostConfig
from shared.contracts import host as contract
from shared.contracts.db import Change, Precondition, Update
from shared.errors import ApiError, internal_error
from shared.service import Service
from shared.store import Store

log = logging.getLogger("api.host")

_SHOWN: Final = {contract.Server.HOST: Shown.CLIENTS, contract.Server.INTERNAL: Shown.HOSTS}

EDITION: Final = "free/libre"
"""The one that there is."""

RETRY: Final = 3.0
"""Seconds until a host that starts asks again for what it should trust."""


class Doors(Protocol):
    """The edge, as far as it belongs to hosts."""

    async def https_only(self, host: str, value: bool) -> None:
        """Closes or opens that host's port for plain HTTP. Raises `ConfigError` when it cannot be opened."""
        ...


class HostSide:
    """`certificates`: what the edge shows. `doors`: the edge, once it listens."""

    def __init__(self, service: Service, api: Api) -> None:
        self._service = service
        self._api = api
        self._folder = service.state_dir
        self._work: set[asyncio.Task[None]] = set()
        self.certificates = Certificates(self._folder / "certificates")
        self.doors: Doors | None = None
        options = api.options
        self._programs = Programs(
            Path(options.plugins),
            Path(options.extensions),
            options.unix_socket,
            options.program_timeout,
            Path(options.driver_view) if options.driver_view else None,
            Path(options.bundled_plugins) if options.bundled_plugins else None,
        )
        self._agent = Agent(service, api.timings, self.spawn)
        service.on_stop(self._close)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs it to its end, or until the service stops."""
        task = asyncio.create_task(work, name=name)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())

    async def _close(self) -> None:
        work = list(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    def trust(self, host: str) -> TrustFolder:
        """What that host (uuid) trusts."""
        return TrustFolder(self._folder / "trust" / host)

    async def serve(self) -> None:
        for host in self._service.hosts:
            await self._serve(host)

    async def _serve(self, host: HostConfig) -> None:
        managed = self._owns(host)
        machine = Machine(managed, self.spawn)
        if managed:
            self._service.spawn(ssh_expiry.follow(self._api, host, machine), f"SSH of {host.name}")
        trust = self.trust(host.uuid)
        serve, programs, agent, certificates = self._service.serve, self._programs, self._agent, self.certificates

        async def shown(_: Empty) -> contract.ServerCertificates:
            return await self._shown(host)

        async def install(request: contract.NewServerCertificate) -> Empty:
            async with self._api.turns.of(host):
                try:
                    await asyncio.to_thread(
                        certificates.install, host, request.certificate, request.private_key, request.chain
                    )
                except ConfigError as error:
                    log.warning("certificate for %s refused: %s", host.name, error)
                    raise ApiError("SERVER_CERTIFICATE_INVALID") from None
            certificates.reload(host)
            return Empty()

        async def self_sign(request: contract.SelfSign) -> contract.ServerCertificates:
            async with self._api.turns.of(host):
                await asyncio.to_thread(certificates.self_sign, host, _SHOWN[request.kind])
            certificates.reload(host)
            return await self._shown(host)

        async def trusted(_: Empty) -> contract.TrustedFiles:
            return await asyncio.to_thread(trust.files)

        async def set_trusted(request: contract.TrustedFiles) -> Empty:
            await asyncio.to_thread(trust.replace, request)
            return Empty()

        outgoing = Outgoing(trust)

        async def post(request: contract.Post) -> contract.Text:
            answer = await asyncio.to_thread(outgoing.post, request.host, request.port, request.body)
            return contract.Text(text=answer)

        async def upload_report(request: contract.Upload) -> Empty:
            await upload(self._api, host.uuid, outgoing, request)
            return Empty()

        async def set_pool_secrets(request: contract.PoolSecrets) -> Empty:
            await asyncio.to_thread(self._api.pool_secrets.replace, request.secrets)
            return Empty()

        async def verify(request: contract.Flag) -> Empty:
            trust.verify = request.value
            return Empty()

        async def https_only(request: contract.Flag) -> Empty:
            await self._https_only(host, request.value)
            return Empty()

        await serve(contract.SERVER_CERTIFICATES, shown, host=host.uuid)
        await serve(contract.INSTALL_SERVER_CERTIFICATE, install, host=host.uuid)
        await serve(contract.SELF_SIGN, self_sign, host=host.uuid)
        await serve(contract.TRUSTED, trusted, host=host.uuid)
        await serve(contract.SET_TRUSTED, set_trusted, host=host.uuid)
        await serve(contract.VERIFY, verify, host=host.uuid)
        await serve(contract.HTTPS_ONLY, https_only, host=host.uuid)
        await serve(contract.SET_POOL_SECRETS, set_pool_secrets, host=host.uuid)
        await serve(contract.POST, post, host=host.uuid)
        await serve(contract.UPLOAD_REPORT, upload_report, host=host.uuid)
        await serve(contract.CALL_PLUGIN, programs.call_plugin, host=host.uuid)
        await serve(contract.CALL_EXTENSION, programs.call_extension, host=host.uuid)
        await serve(contract.HAS_EXTENSION, programs.has_extension, host=host.uuid)
        await serve(contract.CLOCK, machine.clock, host=host.uuid)
        await serve(contract.TIME_ZONES, machine.time_zones, host=host.uuid)
        await serve(contract.NTP_SERVERS, machine.ntp_servers, host=host.uuid)
        await serve(contract.SET_TIME_ZONE, machine.set_time_zone, host=host.uuid)
        await serve(contract.SET_NTP, machine.set_ntp, host=host.uuid)
        await serve(contract.SET_TIME, machine.set_time, host=host.uuid)
        await serve(contract.POWER_OFF, machine.power_off, host=host.uuid)
        await serve(contract.MANAGED, machine.permitted, host=host.uuid)
        await serve(contract.SET_HOST_NAME, machine.set_host_name, host=host.uuid)
        await serve(contract.SSH, machine.ssh, host=host.uuid)
        await serve(contract.SHELL_TIMEOUT, machine.shell_timeout, host=host.uuid)
        await serve(contract.MAX_CSTATE, machine.max_cstate, host=host.uuid)
        await serve(contract.KERNEL_LOG, machine.kernel_log, host=host.uuid)
        await serve(contract.SYSLOG, agent.syslog, host=host.uuid)
        await serve(contract.RESTART, agent.restart, host=host.uuid)
        await serve(contract.SHUT_DOWN, agent.shut_down, host=host.uuid)
        await serve(contract.DEVICES, lambda _: devices.found(managed), host=host.uuid)
        await serve(contract.GC_STATS, diagnostics.gc_stats, host=host.uuid)
        await serve(contract.GC_COMPACT, diagnostics.gc_compact, host=host.uuid)
        await serve(contract.TASKS, agent.tasks, host=host.uuid)
        await serve(contract.TIMINGS, agent.timings, host=host.uuid)

    async def _https_only(self, host: HostConfig, value: bool) -> None:
        if self.doors is not None:
            try:
                await self.doors.https_only(host.uuid, value)
            except ConfigError as error:
                raise internal_error(error) from None

    async def _shown(self, host: HostConfig) -> contract.ServerCertificates:
        def read() -> contract.ServerCertificates:
            pem = self.certificates.pem
            return contract.ServerCertificates(host=pem(host), internal=pem(host, Shown.HOSTS))

        return await asyncio.to_thread(read)

    # ---- catching up with what happened while the host was away

    async def catch_up(self) -> None:
        """Writes down which certificates its hosts show, then fetches what they should trust."""
        await self._api.replica.wait_ready()
        for host in self._service.hosts:
            await self._until_done(f"{host.name} does not listen as it should", self._open_doors, host)
            await self._until_done(f"the certificates of {host.name} are not written down", self._show, host)
            await self._until_done(f"the devices of {host.name} are not written down", self._write_devices, host)
            if not self._api.is_coordinator:
                await self._until_done(f"{host.name} does not know what to trust", self._fetch_trust, host)
        for host in self._service.hosts:
            await self._until_done(f"the log lines of {host.name} are not sent on", self._forward_log, host)

    async def _until_done(self, what: str, step: Any, host: HostConfig) -> None:
        told = ""
        while True:
            try:
                await step(host)
                return
            except (BusError, ApiError) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("%s yet: %s", what, error)
            await asyncio.sleep(RETRY)

    async def _open_doors(self, host: HostConfig) -> None:
        """The rows were not there yet, perhaps, when it began to listen."""
        row = self._api.store.row("host", self._api.store.ref_of_uuid("host", host.uuid) or "")
        if row is not None:
            await self._https_only(host, bool(row["https_only"]))

    async def _forward_log(self, host: HostConfig) -> None:
        """As `host.syslog_reconfigure` left it, before this process was started."""
        row = self._api.store.row("host", self._api.store.ref_of_uuid("host", host.uuid) or "")
        destination = row["logging"].get(contract.SYSLOG_DESTINATION, "") if row is not None else ""
        if destination:
            await self._agent.syslog(contract.Syslog(destination=destination))

    async def _show(self, host: HostConfig) -> None:
        pems = await self._shown(host)
        facts = {"timezone": await asyncio.to_thread(time_zone), "editions": [EDITION], "ssl_legacy": False}

        def decision(store: Store) -> tuple[list[Change], list[Precondition], None]:
            ref = store.ref_of_uuid("host", host.uuid)
            if ref is None:
                raise ApiError("HOST_UNKNOWN_TO_MASTER", host.uuid)
            return [*differing(store, host.uuid, pems), Update(cls="host", ref=ref, fields=facts)], [], None

        await self._api.database.decide(decision)

    async def _write_devices(self, host: HostConfig) -> None:
        found = await devices.found(self._owns(host))
        await self._api.database.decide(lambda store: (host_devices.rows(store, host.uuid, found), [], None))

    def _owns(self, host: HostConfig) -> bool:
        """Whether the machine is that host's alone."""
        return self._api.options.manage_host and not host.simulated

    async def _fetch_trust(self, host: HostConfig) -> None:
        master = self._api.uuid_of("host", self._api.pool()["master"])
        files = await self._api.bus.call(contract.TRUSTED, Empty(), host=master)
        await asyncio.to_thread(self.trust(host.uuid).replace, files)
