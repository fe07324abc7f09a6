"""A pool of two hosts whose disks are written to, read and compared while its processes are killed.

Three SRs: one folder that both hosts have, one that only the first has, and a tmpfs of the second. If wanted, a fourth
of the plug-in of docs/examples, on the first.
"""

from __future__ import annotations

import asyncio
import http.client
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pool import programs
from shared import config
from shared.bus import amqp
from shared.bus.contract import Empty, Method, Reply, Request
from shared.bus.endpoint import Endpoint
from shared.contracts.storage import DATAPATHS, Datapath
from shared.errors import ApiError
from tests.storage.smapiv3.test_example import DATAPATH, VOLUME, install
from tests.support.pool import PoolUnderTest, addresses

CALL_WITHIN = 120.0
"""Seconds after which a call that has not been answered hangs."""
RECOVERS_WITHIN = 90.0
BROKEN = (OSError, http.client.HTTPException, xmlrpc.client.Error)
"""What a connection raises whose other end was killed."""
MIB = 1 << 20
NULL = "OpaqueRef:NULL"
SCRIPTS = "scripts"
QCOW: tuple[Any, ...] = ("0", "scripted", "", "qcow", "user", False, {})


@dataclass(frozen=True)
class Repository:
    """`hosts`: names of those that have it. `folder`: of its images, where it can be looked into. `scripts`: of a
    plug-in that cannot do all.
    """

    ref: str
    uuid: str
    hosts: tuple[str, ...]
    folder: Path | None
    scripts: bool = False


class StormPool:
    def __init__(self, pool: PoolUnderTest) -> None:
        self.pool = pool
        self.directory = pool.directory
        self.api = Api(pool)
        self.uuids = {row.name: row.uuid for row in pool.plan.hosts}
        self._bus = config.load(programs.config_file(pool.directory, "host1", "storage")).bus.url
        self.repositories: list[Repository] = []

    def default_repository(self) -> list[Repository]:
        """The one that every pool has."""
        shared = next(iter(self.api("pool.get_all_records").values()))["default_SR"]
        assert self.pool.plan.sr is not None
        folder = Path(self.pool.plan.sr.location)
        return [Repository(shared, self.api("SR.get_uuid", shared), tuple(self.uuids), folder)]

    def make_repositories(self) -> None:
        api = self.api
        hosts = {name: api("host.get_by_uuid", uuid) for name, uuid in self.uuids.items()}
        folder = self.directory / "local"
        folder.mkdir()
        where: dict[str, str] = {"location": str(folder)}
        local = api("SR.create", hosts["host1"], where, "0", "local", "", "file", "user", False, {})
        memory = api("SR.create", hosts["host2"], {"size": "1GiB"}, "0", "far", "", "memory", "user", False, {})
        self.repositories = [
            *self.default_repository(),
            Repository(local, api("SR.get_uuid", local), ("host1",), folder),
            Repository(memory, api("SR.get_uuid", memory), ("host2",), None),
        ]
        if (self.directory / SCRIPTS).exists():
            made = api("SR.create", hosts["host1"], {"path": str(self.directory / "scripted")}, *QCOW)
            self.repositories.append(Repository(made, api("SR.get_uuid", made), ("host1",), None, scripts=True))

    def remove_repositories(self) -> None:
        for each in self.repositories[1:]:
            for pbd in self.api("SR.get_PBDs", each.ref):
                self.api("PBD.unplug", pbd)
            self.api("SR.destroy", each.ref)

    # ---- disks over HTTP

    def content(self, host: str, vdi: str, **query: str) -> bytes:
        """Raises what `BROKEN` has."""
        return self._http(host, "GET", "/export_raw_vdi", {"vdi": vdi, **query})

    def put(self, host: str, vdi: str, body: bytes, form: str) -> None:
        """The same."""
        self._http(host, "PUT", "/import_raw_vdi", {"vdi": vdi, "format": form}, body)

    def _http(self, host: str, method: str, path: str, query: dict[str, str], body: bytes | None = None) -> bytes:
        address = self.pool.hosts[host]
        connection = http.client.HTTPConnection(address, self.pool.plan.http_port, timeout=CALL_WITHIN)
        try:
            words = urlencode({"session_id": self.api.session, **query})
            connection.request(method, f"{path}?{words}", body)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200:
                raise http.client.HTTPException(f"{method} {path} at {host}: {answer.status} {data[-400:]!r}")
            return data
        finally:
            connection.close()

    # ---- the bus

    async def connect(self) -> Endpoint:
        return await amqp.connect(self._bus, name="storm")

    def ask(self, host: str, method: Method[Request, Reply], request: Request) -> Reply:
        async def asked() -> Reply:
            bus = await self.connect()
            try:
                return await bus.call(method, request, host=self.uuids[host])
            finally:
                await bus.close()

        return asyncio.run(asked())

    def datapaths(self) -> list[Datapath]:
        return [found for host in self.uuids for found in self.ask(host, DATAPATHS, Empty()).datapaths]

    # ---- waiting

    def wait_ready(self) -> None:
        self.pool.wait_ready(RECOVERS_WITHIN)
        self.api.log_in()


class Refused(Exception):
    """The API answered with an error: `code` and its parameters."""

    def __init__(self, description: list[str]) -> None:
        super().__init__(" ".join(description))
        self.code = description[0]


FAILED_CALL = (*BROKEN, Refused, ApiError)


class _Transport(xmlrpc.client.Transport):
    """One attempt, which ends. The library's own asks again when a connection breaks: what the killed process had done
    would be done twice.
    """

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = CALL_WITHIN
        return connection

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        return self.single_request(host, handler, request_body, verbose)


class Api:
    """Calls by name, from any thread, each on a connection of its own. They raise `Refused`, and what `BROKEN` has."""

    def __init__(self, pool: PoolUnderTest) -> None:
        self._pool = pool
        self.session = ""
        self.log_in()

    def log_in(self) -> None:
        """Anew if the session is not valid any more."""
        if self.session:
            try:
                self("session.get_uuid", self.session)
                return
            except Refused:
                self.session = ""
        self.session = self._ask("session.login_with_password", "root", self._pool.password, "1.0", "storm")

    def __call__(self, message: str, *arguments: Any) -> Any:
        return self._ask(message, self.session, *arguments)

    def _ask(self, message: str, *arguments: Any) -> Any:
        with xmlrpc.client.ServerProxy(self._pool.url, transport=_Transport(), allow_none=True) as proxy:
            answer: Any = getattr(proxy, message)(*arguments)
        if answer.get("Status") != "Success":
            raise Refused(answer.get("ErrorDescription") or [str(answer)])
        return answer["Value"]


@contextmanager
def running(directory: Path, *, scripts: bool = False, backend: str = "simulator") -> Iterator[StormPool]:
    """Merges begin at once, and go on for a moment, so that they are met."""
    options = directory / "options"
    options.mkdir(parents=True)
    told = f"coalesce_delay = 0.3\ncoalesce_interval = 5.0\ncoalesce_rate = {8 * MIB}\n"
    if scripts:
        for part in (VOLUME, DATAPATH):
            install(directory / SCRIPTS, part)
        told += f'smapiv3_root = "{directory / SCRIPTS}"\n'
    (options / "storage.toml").write_text(told)
    pool = PoolUnderTest(
        directory,
        *("--hosts", "2", "--backend", backend, "--http-port", "8080", "--https-port", "8443"),
        *addresses("", 71),
    )
    try:
        pool.up()
        yield StormPool(pool)
    finally:
        pool.down()
