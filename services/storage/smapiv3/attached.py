"""The SRs that a volume plug-in has attached, and the calls that are about one of them."""

from __future__ import annotations

from typing import NamedTuple

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.interface import Handle
from services.storage.smapiv3.datapaths import Schemes
from services.storage.smapiv3.scripts import Calls, Scripts
from services.storage.smapiv3.state import AttachedSr, State


class Sr(NamedTuple):
    """`handle`: what the plug-in calls it. `calls`: for its scripts."""

    host: str
    uuid: str
    handle: str
    calls: Calls


class AttachedSrs:
    """What the groups of one plug-in share. `kind`: the SR type."""

    def __init__(self, kind: str, scripts: Scripts, schemes: Schemes, state: State) -> None:
        self.kind, self.scripts, self.schemes, self.state = kind, scripts, schemes, state

    def find(self, handle: Handle) -> Sr:
        """Raises SR_BACKEND_FAILURE_47."""
        host, _, uuid = handle.partition(" ")
        known = self.state.attached(self.kind, host, uuid)
        if known is None:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {uuid}")
        return Sr(host, uuid, known.handle, self.scripts.calls(host, uuid))

    async def add(self, host: str, uuid: str, entry: AttachedSr) -> Handle:
        await self.state.attach(self.kind, host, uuid, entry)
        return named(host, uuid)

    async def remove(self, handle: Handle) -> None:
        host, _, uuid = handle.partition(" ")
        await self.state.attach(self.kind, host, uuid, None)


def named(host: str, uuid: str) -> Handle:
    return Handle(f"{host} {uuid}")
