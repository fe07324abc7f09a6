"""The datapath plug-ins, by the scheme of URIs, and what a volume plug-in's disks are reached by."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from services.storage.nbd.address import parse
from services.storage.plugins.errors import plugin_failed
from services.storage.plugins.interface import Domain, Handle, Held, Implementation
from services.storage.plugins.skeleton import DatapathSkeleton
from services.storage.smapiv3 import compat
from services.storage.smapiv3 import interface_v5 as v5
from services.storage.smapiv3.query import NONPERSISTENT
from services.storage.smapiv3.scripts import Calls, Scripts
from services.storage.smapiv3.state import State
from shared.errors import ApiError

log = logging.getLogger("storage.smapiv3")

READONLY = "VDI_ACTIVATE_READONLY"


class Schemes:
    """The datapath plug-ins that there are now. `register` replaces."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Scripts, frozenset[str]]] = {}

    def register(self, scheme: str, scripts: Scripts, features: Sequence[str]) -> None:
        self._known[scheme] = (scripts, frozenset(features))

    def remove(self, scheme: str) -> None:
        self._known.pop(scheme, None)

    def scripts(self, uri: str) -> Scripts:
        """Raises MISSING_URI."""
        found = self._known.get(scheme_of(uri))
        if found is None:
            raise self._no_plugin([uri])
        return found[0]

    def has(self, uri: str, feature: str) -> bool:
        found = self._known.get(scheme_of(uri))
        return found is not None and feature in found[1]

    def ordered(self, uris: Sequence[str]) -> list[str]:
        """Those that can be used come first."""
        return sorted(uris, key=lambda uri: scheme_of(uri) not in self._known)

    def choose(self, uris: Sequence[str], persistent: bool = True) -> str:
        """The best that can be used. Not persistent: rather one that can forget by itself. Raises MISSING_URI."""
        usable = [uri for uri in uris if scheme_of(uri) in self._known]
        if not usable:
            raise self._no_plugin(uris)
        forgetful = [] if persistent else [uri for uri in usable if self.has(uri, NONPERSISTENT)]
        return (forgetful or usable)[0]

    def _no_plugin(self, uris: Sequence[str]) -> ApiError:
        """Names the schemes alone: URIs may hold passwords."""
        wanted = ", ".join(scheme_of(uri) or "no scheme" for uri in uris) or "a volume without URI"
        return compat.missing_uri(f"no datapath plug-in for {wanted}; there are: {', '.join(self._known) or 'none'}")


def scheme_of(uri: str) -> str:
    """Its part before the colon, "" if it has none."""
    scheme, colon, _ = uri.partition(":")
    return scheme if colon else ""


class DatapathMethods(DatapathSkeleton):
    """Of one volume plug-in. `readonly`: it has the feature to activate for reading only."""

    def __init__(self, schemes: Schemes, state: State) -> None:
        self._schemes, self._state = schemes, state
        self.readonly = False

    async def attach(self, uri: str, domain: Domain) -> Implementation:
        calls = self._calls(uri, domain)
        name = await self._state.domain(domain.host, uri, domain_name(domain.dp))
        return implementation(await calls(v5.Datapath.attach, uri=uri, domain=name))

    async def activate(self, uri: str, domain: Domain) -> None:
        await self._calls(uri, domain)(v5.Datapath.activate, uri=uri, domain=self._name(uri, domain))

    async def activate_readonly(self, uri: str, domain: Domain) -> None:
        if not self.readonly and not self._schemes.has(uri, READONLY):
            await self.activate(uri, domain)
            return
        await self._calls(uri, domain)(v5.Datapath.activate_readonly, uri=uri, domain=self._name(uri, domain))

    async def deactivate(self, uri: str, domain: Domain) -> None:
        try:
            await self._calls(uri, domain)(v5.Datapath.deactivate, uri=uri, domain=self._name(uri, domain))
        except ApiError as error:
            _unless_vanished(error, uri)

    async def detach(self, uri: str, domain: Domain) -> None:
        try:
            await self._calls(uri, domain)(v5.Datapath.detach, uri=uri, domain=self._name(uri, domain))
        except ApiError as error:
            _unless_vanished(error, uri)
        await self._state.forget_domain(domain.host, uri)

    async def held(self, sr: Handle) -> list[Held]:
        """Nothing that SMAPIv3 would tell."""
        return []

    async def fence(self, sr: Handle, host: str) -> int:
        """SMAPIv3 has no way to say that a host is dead: its plug-ins find that out by themselves."""
        return 0

    # -- what is begun at one run of a VM and ended after it -------------------------------------------------------

    async def open(self, uri: str, host: str, persistent: bool) -> None:
        await self._schemes.scripts(uri).calls(host)(v5.Datapath.open, uri=uri, persistent=persistent)

    async def close(self, uri: str, host: str) -> None:
        await self._schemes.scripts(uri).calls(host)(v5.Datapath.close, uri=uri)

    def _calls(self, uri: str, domain: Domain) -> Calls:
        return self._schemes.scripts(uri).calls(domain.host)

    def _name(self, uri: str, domain: Domain) -> str:
        return self._state.known_domain(domain.host, uri, domain_name(domain.dp))


def domain_name(dp: str) -> str:
    """Plug-ins make names of files and of units of it."""
    return "u0_" + re.sub(r"[/-]", "_", dp)


def _unless_vanished(error: ApiError, uri: str) -> None:
    """What is not there any more needs no cleaning up."""
    if error.code != "VDI_MISSING":
        raise error
    log.warning("%s has vanished while it was attached", uri)


# -- how QEMU reaches a disk ------------------------------------------------------------------------------------------

_QDISK_FORMATS = {"raw": "raw", "aio": "raw", "qcow2": "qcow2", "vhd": "vhd", "vpc": "vhd"}


def implementation(backend: v5.Backend) -> Implementation:
    """The best that QEMU can open itself: a file or a block device before an NBD server, which is one more hop."""
    usable = [found for each in backend.implementations if (found := _usable(each)) is not None]
    if not usable:
        offered = ", ".join(type(each).__name__ for each in backend.implementations) or "nothing"
        raise plugin_failed("the datapath plug-in offers no way that QEMU has to the disk", offered)
    return min(usable, key=lambda found: _PREFERENCE.index(found.kind))


_PREFERENCE = ("file", "block", "nbd")


def _usable(offered: v5.XenDisk | v5.BlockDevice | v5.File | v5.Nbd) -> Implementation | None:
    match offered:
        case v5.File(value):
            return Implementation(kind="file", path=value.path, format="raw")
        case v5.BlockDevice(value):
            return Implementation(kind="block", path=value.path, format="raw")
        case v5.Nbd(value):
            return _nbd(value.uri)
        case v5.XenDisk(value) if value.backend_type == "qdisk":
            kind, _, path = value.params.partition(":")
            if kind == "nbd":
                return _nbd(value.params)
            if kind in _QDISK_FORMATS and path.startswith("/"):
                return Implementation(kind="file", path=path, format=_QDISK_FORMATS[kind])
        case v5.XenDisk(value) if value.params.startswith("/dev/"):
            return Implementation(kind="block", path=value.params, format="raw")
    return None


def _nbd(uri: str) -> Implementation | None:
    try:
        address = parse(uri)
    except ValueError as error:
        log.warning("a datapath plug-in offers %s", error)
        return None
    return Implementation(kind="nbd", path=str(address), format="raw") if address.path else None
