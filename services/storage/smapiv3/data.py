"""Long work on the data of volumes that a datapath plug-in does itself: copies and mirrors to another disk."""

from __future__ import annotations

from collections.abc import Sequence

from services.storage.plugins.interface import Domain, Range
from services.storage.smapiv3 import interface_v5 as v5
from services.storage.smapiv3.datapaths import Schemes, domain_name
from services.storage.smapiv3.scripts import Calls
from services.storage.smapiv3.state import State

Operation = v5.CopyV1 | v5.MirrorV1


class DataMethods:
    """Raises what calls raise; `Unimplemented` where the datapath plug-in leaves it to the host."""

    def __init__(self, schemes: Schemes, state: State) -> None:
        self._schemes, self._state = schemes, state

    async def copy(self, uri: str, domain: Domain, remote: str, block: int, ranges: Sequence[Range]) -> Operation:
        """`remote`: URI of the disk to write to. `block`: bytes, of which all ranges are multiples."""
        blocks = [(each.offset // block, each.length // block) for each in ranges]
        name = self._state.known_domain(domain.host, uri, domain_name(domain.dp))
        wanted = v5.BlockList(blocksize=block, ranges=blocks)
        return await self._calls(uri, domain)(v5.Data.copy, uri, name, remote, wanted)

    async def mirror(self, uri: str, domain: Domain, remote: str) -> Operation:
        name = self._state.known_domain(domain.host, uri, domain_name(domain.dp))
        return await self._calls(uri, domain)(v5.Data.mirror, uri, name, remote)

    async def stat(self, uri: str, domain: Domain, operation: Operation) -> v5.OperationStatus:
        return await self._calls(uri, domain)(v5.Data.stat, operation)

    async def cancel(self, uri: str, domain: Domain, operation: Operation) -> None:
        await self._calls(uri, domain)(v5.Data.cancel, operation)

    async def destroy(self, uri: str, domain: Domain, operation: Operation) -> None:
        await self._calls(uri, domain)(v5.Data.destroy, operation)

    async def import_activate(self, uri: str, domain: Domain) -> str:
        """A Unix socket; see the declaration."""
        name = self._state.known_domain(domain.host, uri, domain_name(domain.dp))
        return await self._calls(uri, domain)(v5.Datapath.import_activate, uri, name)

    def _calls(self, uri: str, domain: Domain) -> Calls:
        return self._schemes.scripts(uri).calls(domain.host)
