"""Fixtures of the conformance suite: an SR of each type that has what a test needs, and a look for what is left."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from services.storage.plugins.interface import Handle, Plugin, Volume
from services.storage.plugins.mounted_point import mounts
from services.storage.plugins.program import run
from tests.storage.conformance.entry import Entry, Medium
from tests.storage.conformance.loops import attached_below
from tests.storage.conformance.table import ENTRIES
from tests.storage.support import HOST_A, HOST_B, MIB, SR, new

NAMESPACES_END_WITHIN: Final = 5.0
"""Seconds."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*traits): what an SR type must have for the test")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`@needs(...)`: the test is run on the types that have these traits."""
    if "entry" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("needs")
    needed = set(marker.args) if marker else set()
    chosen = {name: entry for name, entry in ENTRIES.items() if needed <= entry.traits}
    metafunc.parametrize("entry", chosen.values(), ids=chosen.keys(), indirect=True)


@pytest.fixture
def entry(request: pytest.FixtureRequest) -> Entry:
    chosen: Entry = request.param
    if chosen.requires:
        pytest.skip(chosen.requires)
    return chosen


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """Of what a test mounted or attached to loop devices, in its own folder. A mount namespace that another process was
    just making has the device for a moment longer.
    """
    yield
    deadline = time.monotonic() + NAMESPACES_END_WITHIN
    while attached_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [found.place for found in mounts() if found.place.startswith(str(tmp_path))] == []
    assert attached_below(tmp_path) == []


@pytest.fixture
def medium(entry: Entry, tmp_path: Path) -> Iterator[Medium]:
    with entry.medium(tmp_path) as made:
        yield made


@dataclass
class Service:
    """A plug-in as the storage service has it: it can be lost, as by kill -9, and started again."""

    entry: Entry
    state: Path
    plugin: Plugin
    attached: dict[str, Handle]
    configuration: dict[str, str]

    async def again(self) -> Plugin:
        """The process ends without a word, and another one starts."""
        await self.plugin.close()  # its threads and files; what is mounted or activated is as it was
        self.plugin = await self.entry.make(self.state)
        self.attached = {host: await self.attach(host) for host in self.attached}
        return self.plugin

    async def attach(self, host: str) -> Handle:
        handle = await self.plugin.sr.attach(SR, self.configuration, host)
        self.attached[host] = handle
        return handle


@pytest.fixture
async def service(entry: Entry, medium: Medium, tmp_path: Path) -> AsyncIterator[Service]:
    """What is attached at the end is cleaned up as an administrator would."""
    state = tmp_path / "state"
    state.mkdir()
    service = Service(entry, state, await entry.make(state), {}, medium.configuration)
    yield service
    medium.heal()
    for handle in service.attached.values():
        await service.plugin.sr.detach(handle)
    await service.plugin.close()
    for found in mounts():
        if found.kind == "tmpfs" and found.place.startswith(str(tmp_path)):
            await run(["umount", found.place])  # memory with disks in it, which a detach keeps


@pytest.fixture
def plugin(service: Service) -> Plugin:
    return service.plugin


@pytest.fixture
async def configuration(service: Service) -> dict[str, str]:
    """Of an SR that was created."""
    service.configuration = await service.plugin.sr.create(SR, service.configuration, "name", "description")
    return service.configuration


@pytest.fixture
async def sr(service: Service, configuration: dict[str, str]) -> Handle:
    return await service.attach(HOST_A)


@pytest.fixture
async def elsewhere(service: Service, sr: Handle) -> Handle:
    """The same SR on another host."""
    return await service.attach(HOST_B)


@pytest.fixture
async def volume(plugin: Plugin, sr: Handle, medium: Medium) -> Volume:
    """A disk, whoever makes disks of that type."""
    if medium.put is None:
        return await plugin.volume.create(sr, new("disk"), MIB)
    key = medium.put("disk", MIB)
    return next(found for found in await plugin.sr.ls(sr) if found.key == key)
