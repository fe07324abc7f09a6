"""Drivers of the tests against the real API over its Unix socket; other services of the host are fakes."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from services.storage.plugins.interface import Handle, NewVolume, Volume
from services.storage.registry import Registry
from services.storage.smapiv1.discovery import Discovery
from services.storage.smapiv1.host import DriverHost
from services.storage.smapiv1.plugin import DriverPlugin
from services.storage.smapiv1.private_view import PrivateView
from services.storage.smapiv1.view import SystemView, View
from services.storage.smapiv1.xapi import Xapi
from shared.contracts.db import Create
from tests.api.handlers.conftest import Site
from tests.api.harness import Client, Pool

DRIVERS = Path(__file__).parent / "drivers"
MIB = 1 << 20

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces are root's")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


NAMES = {"testdummy": "TestDummy", "testfile": "TestFile", "testiso": "TestIso", "testvhd": "TestVhd"}
"""SR types of the tests' drivers, and what the drivers are called."""


class Bench:
    """Drivers on a host of a pool, as one storage process has them."""

    def __init__(self, api: Socket, folder: Path) -> None:
        self.pool, self.client, self.site, self.folder = api.pool, api.client, api.site, folder
        self.log = folder / "calls"
        self.views: list[View] = []
        self.begin()

    def begin(self, private: bool = False) -> None:
        """A storage process starts; of an earlier one only files are left."""
        place = self.folder / "view"
        view: View = SystemView(place / "state")
        if private:
            view = PrivateView(place, str(self.site.socket), str(DRIVERS), SystemView(place / "state"))
        self.views.append(view)
        self.host = DriverHost(self.pool.hosts[0].uuid, self._xapi(), view)
        self.registry = Registry({})

    def _xapi(self) -> Xapi:
        return Xapi(str(self.site.socket), kept=self.folder / "kept" / "sessions")

    async def plugin(self, kind: str) -> DriverPlugin:
        """The driver of that SR type, found as the service does."""
        if kind not in self.registry:
            await Discovery(DRIVERS, [NAMES[kind]], {self.host.uuid: self.host}, self.registry).look()
        plugin = self.registry[kind]
        assert isinstance(plugin, DriverPlugin)
        return plugin

    async def row(self, kind: str, **config: str) -> tuple[str, str]:
        """An SR's rows, as SR.create writes them before it asks for a medium: reference and uuid."""
        new = str(uuid.uuid4())
        ref: str = await self.client.call("SR.introduce", new, "sr", "", kind, "user", False, {})
        config = {"log": str(self.log), **config}
        fields = {"host": self.pool.host_ref(0), "SR": ref, "device_config": config, "currently_attached": True}
        await self.pool.write(Create(cls="PBD", ref=f"OpaqueRef:{uuid.uuid4()}", fields=fields))
        return ref, new

    def config(self, sr: str) -> dict[str, str]:
        pbd = self.pool.store.get("SR", sr, "PBDs")[0]
        return dict(self.pool.row("PBD", pbd)["device_config"])

    async def attached(self, kind: str, **config: str) -> tuple[DriverPlugin, Handle, str]:
        """A driver, an SR of it, and the SR's reference."""
        plugin = await self.plugin(kind)
        ref, new = await self.row(kind, **config)
        await plugin.sr.create_on(self.host.uuid, new, self.config(ref), "sr", "", 0)
        return plugin, await plugin.sr.attach(new, self.config(ref), self.host.uuid), ref

    def calls(self, command: str = "") -> list[dict[str, Any]]:
        """What drivers were asked so far."""
        if not self.log.exists():
            return []
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [call for call in found if command in ("", call["command"])]

    def vdi(self, volume: Volume) -> Any:
        """The disk's row."""
        return self.pool.row("VDI", self.vdi_ref(volume))

    def vdi_ref(self, volume: Volume) -> str:
        found = self.pool.store.ref_of_uuid("VDI", volume.uuid)
        assert found is not None
        return found


def new(name: str = "disk", **keys: str) -> NewVolume:
    return NewVolume(uuid=str(uuid.uuid4()), name=name, description="d", keys=keys)


async def disk(plugin: DriverPlugin, sr: Handle, name: str = "disk", size: int = MIB) -> Volume:
    return await plugin.volume.create(sr, new(name), size)


class Socket:
    """A pool of one host with its API's socket."""

    def __init__(self, pool: Pool, client: Client, site: Site) -> None:
        self.pool, self.client, self.site = pool, client, site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Socket]:
    folder = tmp_path_factory.mktemp("v1")
    pool = await Pool.start(folder, hosts=1)
    client = await pool.login()
    site = Site(pool, client, folder)
    await site.start()
    yield Socket(pool, client, site)
    await site.stop()
    await pool.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def bench(api: Socket, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(api, tmp_path)
    yield made
    await made.host.xapi.logout()
    for view in made.views:
        await view.close()
