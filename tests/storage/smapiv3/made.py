"""A script plug-in for the conformance suite of SR types."""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.storage.journal import Journal
from services.storage.plugins.interface import Plugin
from services.storage.smapiv3 import bindings
from services.storage.smapiv3.datapaths import Schemes
from services.storage.smapiv3.plugin import ScriptPlugin
from services.storage.smapiv3.scripts import Scripts
from services.storage.smapiv3.state import State
from tests.storage.smapiv3.install import raw_file, simple_file


class _Alone(ScriptPlugin):
    """With the state that it otherwise shares with others."""

    def __init__(self, scripts: Scripts, schemes: Schemes, state: State) -> None:
        super().__init__("simple-file", scripts, schemes, state)
        self._own = state

    async def close(self) -> None:
        await self._own.close()


async def make(folder: Path) -> Plugin:
    """`folder`: what the service keeps over restarts. The scripts are the same for all tests, and compiled once."""
    shared = folder.parents[1] / "smapiv3"
    root, packages = shared / "root", shared / "python"
    if not await asyncio.to_thread(shared.exists):
        await asyncio.to_thread(bindings.write, packages)
        simple_file(root)
        raw_file(root)
    schemes = Schemes()
    schemes.register("raw+file", Scripts(root / "datapath/raw+file", packages), [])
    state = State(Journal(folder / "journal"))
    await state.start("boot-1")
    plugin = _Alone(Scripts(root / "volume/org.xen.xapi.storage.simple-file", packages), schemes, state)
    await plugin.ask()
    return plugin
