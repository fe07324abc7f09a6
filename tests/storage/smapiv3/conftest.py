"""Script plug-ins as the storage service has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.storage.journal import Journal
from services.storage.plugins.interface import Handle
from services.storage.registry import Registry
from services.storage.smapiv3 import bindings
from services.storage.smapiv3.discovery import Discovery
from services.storage.smapiv3.plugin import ScriptPlugin
from services.storage.smapiv3.state import State
from tests.storage.smapiv3.install import raw_file, simple_file
from tests.storage.support import HOST_A, SR


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What scripts import."""
    folder = tmp_path_factory.mktemp("python")
    bindings.write(folder)
    return folder


@dataclass
class Scripted:
    """The script plug-ins of a storage service, which can be lost, as by kill -9, and started again."""

    root: Path
    folder: Path
    packages: Path
    registry: Registry
    discovery: Discovery

    @property
    def plugin(self) -> ScriptPlugin:
        found = self.registry["simple-file"]
        assert isinstance(found, ScriptPlugin)
        return found

    async def again(self, boot: str = "boot-1") -> ScriptPlugin:
        """The process ends without a word, and another one starts. Another boot: so does the machine."""
        await self.discovery.close()
        self.registry = Registry({})
        self.discovery = discovery(self.root, self.folder, self.packages, self.registry)
        await self.discovery.start(boot, 10.0)
        return self.plugin

    async def alias(self, scheme: str) -> None:
        """Another scheme for the datapath plug-in, found while the service runs."""
        (self.root / "datapath" / scheme).symlink_to("raw+file")
        await self.discovery.refresh()
        await self.discovery.refresh()
        await self.discovery.answers()

    async def sr(self, **configuration: str) -> Handle:
        given = {"location": str(self.folder / "sr"), **configuration}
        return await self.plugin.sr.attach(SR, await self.plugin.sr.create(SR, given, "name", ""), HOST_A)


def discovery(root: Path, folder: Path, packages: Path, registry: Registry) -> Discovery:
    return Discovery(root, packages, registry, State(Journal(folder / "journal")))


@pytest.fixture
async def scripted(tmp_path: Path, packages: Path) -> AsyncIterator[Scripted]:
    """With the plug-ins simple-file and raw+file."""
    root = tmp_path / "root"
    simple_file(root)
    raw_file(root)
    registry = Registry({})
    made = Scripted(root, tmp_path, packages, registry, discovery(root, tmp_path, packages, registry))
    await made.discovery.start("boot-1", 10.0)
    yield made
    await made.discovery.close()
