"""Making the data of a driver's disks reachable."""

from __future__ import annotations

import logging
import stat
import uuid as uuids
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.storage.plugins.interface import Domain, Handle, Held, Implementation
from services.storage.smapiv1.call import struct
from services.storage.smapiv1.marks import Activation
from services.storage.smapiv1.rows import CONTENT_ID, parse_uri, uri
from services.storage.smapiv1.tags import of_host, remove
from shared.errors import ApiError

if TYPE_CHECKING:
    from services.storage.smapiv1.plugin import Attached, DriverPlugin
    from services.storage.smapiv1.view import View

log = logging.getLogger("storage.smapiv1")

_NBD: Final = "nbd:unix:"
_NOWHERE: Final = "/dev/null"
"""Where disks are that hold nothing."""


def implementation(answer: dict[str, Any], view: View) -> Implementation:
    """An NBD socket if the driver names one, else its block device or file. The data of all is raw."""
    nbd, params = str(answer["params_nbd"]), str(answer.get("params") or "")
    if params == _NOWHERE:
        return Implementation(kind="file", path="", format="none")
    if nbd.startswith(_NBD):
        socket, _, export = nbd.removeprefix(_NBD).partition(":exportname=")
        return Implementation(kind="nbd", path=f"{_NBD}{view.outside(socket)}:exportname={export}", format="raw")
    return _at(view.outside(params))


def relocated(attached: Implementation, view: View) -> Implementation:
    """Drivers name links that are there, and lead anywhere, once they have activated the disk."""
    if attached.kind == "nbd":
        socket, mark, export = attached.path.removeprefix(_NBD).partition(":exportname=")
        return Implementation(kind="nbd", path=f"{_NBD}{view.outside(socket)}{mark}{export}", format=attached.format)
    return _at(view.outside(attached.path)) if attached.path else attached


def _at(path: str) -> Implementation:
    return Implementation(kind="block" if _is_device(path) else "file", path=path, format="raw")


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except OSError:
        return path.startswith("/dev/")  # it appears with activation


class DatapathGroup:
    def __init__(self, plugin: DriverPlugin) -> None:
        self._plugin = plugin

    async def attach(self, uri: str, domain: Domain) -> Implementation:
        at, location = self._find(uri, domain)
        ref, _ = await at.host.disk(at.sr, at.uuid, location)
        answer = await self._ask(at, location, "vdi_attach", _flag(domain.writable))
        found = struct("vdi_attach", answer, "params_nbd")
        await self._note_caching(at, ref, found)
        return implementation(found, at.host.view)

    async def located(self, uri: str, domain: Domain, attached: Implementation) -> Implementation:
        at, _ = self._find(uri, domain)
        return relocated(attached, at.host.view)

    async def activate(self, uri: str, domain: Domain) -> None:
        await self._activate(uri, domain, writable=True)

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        await self._activate(uri, domain, writable=False)

    async def deactivate(self, uri: str, domain: Domain) -> None:
        at, location = self._find(uri, domain)
        try:
            ref, row = await at.host.disk(at.sr, at.uuid, location)
            if CONTENT_ID not in row["other_config"]:
                identity = str(uuids.uuid4())
                await at.host.xapi.call(at.sr, "VDI.add_to_other_config", ref, CONTENT_ID, identity)
            await self._deactivate(at, location)
        except ApiError as error:
            if error.code != "VDI_MISSING":
                raise
            log.warning("SR %s: disk %s has vanished while it was active", at.uuid, location)
        at.host.marks.deactivated(at.uuid, location)

    async def detach(self, uri: str, domain: Domain) -> None:
        at, location = self._find(uri, domain)
        try:
            ref, _ = await at.host.disk(at.sr, at.uuid, location)
            await self._ask(at, location, "vdi_detach")
            await self._forget_caching(at, ref)
        except ApiError as error:
            if error.code != "VDI_MISSING":
                raise
            log.warning("SR %s: disk %s has vanished while it was attached", at.uuid, location)

    async def held(self, sr: Handle) -> list[Held]:
        at = self._plugin.of(sr)
        return [
            Held(key=location, uri=uri(at.uuid, location), dp=one.dp, writable=one.writable)
            for location, one in at.host.marks.activations(at.uuid).items()
        ]

    async def fence(self, sr: Handle, host: str) -> int:
        at = self._plugin.of(sr)
        ref = await at.host.xapi.call("", "host.get_by_uuid", host)
        tags = of_host(await at.host.disks(at.sr), ref)
        await remove(at, tags)
        return len(tags)

    # -- what drivers need ---------------------------------------------------------------------------------------------

    async def _activate(self, uri: str, domain: Domain, writable: bool) -> None:
        at, location = self._find(uri, domain)
        marks = at.host.marks
        before = marks.activation(at.uuid, location)
        if before is not None and before.done and before.writable == writable:
            return  # drivers refuse what they have done already
        ref, row = await at.host.disk(at.sr, at.uuid, location)
        if before is not None:  # interrupted half-way
            await self._deactivate(at, location)
            await remove(at, of_host({ref: row}, await at.host.ref()))
        if writable:
            await at.host.xapi.call(at.sr, "VDI.remove_from_other_config", ref, CONTENT_ID)
        wanted = Activation(sr=at.uuid, location=location, dp=domain.dp, writable=writable, done=False)
        marks.activated(wanted)
        if self._plugin.can("VDI_ACTIVATE"):
            await self._ask(at, location, "vdi_activate", _flag(writable))
        marks.activated(Activation(sr=at.uuid, location=location, dp=domain.dp, writable=writable, done=True))

    async def _deactivate(self, at: Attached, location: str) -> None:
        if self._plugin.can("VDI_DEACTIVATE"):
            await self._ask(at, location, "vdi_deactivate")

    async def _note_caching(self, at: Attached, ref: str, answer: dict[str, Any]) -> None:
        """In the disk's `sm_config`: whether this host keeps what it reads of it, or why not."""
        direct = answer.get("o_direct") is not False
        await self._forget_caching(at, ref)
        on, reason = self._caching_keys(at)
        await at.host.xapi.call(at.sr, "VDI.add_to_sm_config", ref, on, _flag(not direct))
        if direct:
            why = str(answer.get("o_direct_reason") or "")
            await at.host.xapi.call(at.sr, "VDI.add_to_sm_config", ref, reason, why)

    async def _forget_caching(self, at: Attached, ref: str) -> None:
        for key in self._caching_keys(at):
            await at.host.xapi.call(at.sr, "VDI.remove_from_sm_config", ref, key)

    @staticmethod
    def _caching_keys(at: Attached) -> tuple[str, str]:
        return f"read-caching-enabled-on-{at.host.uuid}", f"read-caching-reason-{at.host.uuid}"

    def _find(self, uri: str, domain: Domain) -> tuple[Attached, str]:
        sr, location = parse_uri(uri)
        return self._plugin.on(domain.host, sr), location

    async def _ask(self, at: Attached, location: str, command: str, *args: str) -> Any:
        return await at.host.vdi_call(self._plugin.program, at.sr, at.uuid, location, command, *args)


def _flag(value: bool) -> str:
    return "true" if value else "false"
