"""Bridges and taps of one prefix: made when needed, all or none, and only ever removed when they were made here.

Every function blocks and runs in the netlink thread. A device of ours is known by its mark, not by its name alone: a
bridge that the administrator made is used and never touched.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

from services.network import names
from services.network.links import Link, LinkError, Links
from shared.bus.contract import Record
from shared.contracts.network import VifBackend, VifPlug
from shared.errors import ApiError

log = logging.getLogger("network.devices")


class Tap(Record, frozen=True):
    """`open`: a process (QEMU) has it open."""

    name: str
    vm: str
    device: str
    open: bool


class Devices:
    def __init__(self, links: Links, prefix: str, host: str) -> None:
        self._links = links
        self._prefix = prefix
        self._host = host

    def bridge_up(self, bridge: str, mtu: int) -> bool:
        """True: it was made.

        Raises NETWORK_INCOMPATIBLE_WITH_BRIDGE, HOST_CANNOT_ATTACH_NETWORK [host, bridge, why].
        """
        name = names.bridge_device(self._prefix, bridge)
        mark = names.bridge_mark(self._prefix, bridge)
        try:
            link = self._links.find(name)
            if link is not None:
                if link.kind != "bridge":
                    raise ApiError("NETWORK_INCOMPATIBLE_WITH_BRIDGE", bridge)
                if link.mark.startswith(names.marks(self._prefix)) and link.mark != mark:
                    raise self._cannot_attach(bridge, f"the device {name} is {link.mark}")
                ours = link.mark == mark
                if not link.mark and self._prefix:  # made here, and the service died before it was marked
                    self._links.configure(name, ifalias=mark)
                    ours = True
                if ours and (not link.up or link.mtu != mtu):
                    self._links.configure(name, mtu=mtu, state="up")
                return False
            self._links.add_bridge(name, _mac(mark))
            try:
                self._links.configure(name, ifalias=mark)
                self._links.without_ipv6(name)
                self._links.configure(name, mtu=mtu, state="up")
            except LinkError:
                self._remove(name)
                raise
        except LinkError as error:
            raise self._cannot_attach(bridge, str(error)) from error
        return True

    def bridge_down(self, bridge: str) -> bool:
        """Removes a bridge made here that has no port. False: it stays."""
        name = names.bridge_device(self._prefix, bridge)
        link = self._links.find(name)
        if link is None:
            return True
        if link.mark != names.bridge_mark(self._prefix, bridge):
            return False
        if any(port.master == link.index for port in self._links.all()):
            return False
        self._links.delete(name)
        return True

    def plug(self, vifs: Sequence[VifPlug]) -> list[VifBackend]:
        """Raises what `bridge_up` raises, and CANNOT_PLUG_VIF ["<vm>/<device>", why]; then nothing new is left."""
        undo: list[Callable[[], None]] = []
        try:
            for vif in vifs:
                name = names.bridge_device(self._prefix, vif.bridge)
                if self.bridge_up(vif.bridge, vif.mtu):
                    undo.append(partial(self._remove, name))
                self._plug(vif, undo)
        except ApiError:
            for step in reversed(undo):
                step()
            raise
        return [
            VifBackend(
                vm=vif.vm, device=vif.device, kind="tap", name=names.tap_device(self._prefix, vif.vm, vif.device)
            )
            for vif in vifs
        ]

    def unplug(self, vm: str, devices: Sequence[str]) -> None:
        """All of the VM's taps when no device is given. Raises LinkError."""
        for tap in self.taps():
            if tap.vm == vm and (not devices or tap.device in devices):
                self._links.delete(tap.name)

    def taps(self) -> list[Tap]:
        return [
            Tap(name=link.name, vm=found[0], device=found[1], open=link.carrier)
            for link in self._links.all()
            if (found := names.tap_of(self._prefix, link.mark)) is not None
        ]

    def remove_tap(self, tap: Tap) -> None:
        self._links.delete(tap.name)

    def _plug(self, vif: VifPlug, undo: list[Callable[[], None]]) -> None:
        name = names.tap_device(self._prefix, vif.vm, vif.device)
        mark = names.tap_mark(self._prefix, vif.vm, vif.device)
        try:
            bridge = self._links.find(names.bridge_device(self._prefix, vif.bridge))
            link = self._links.find(name)
            if link is None:
                self._links.add_tap(name)
                undo.append(lambda: self._remove(name))
            elif link.kind != "tun" or link.mark not in (mark, ""):
                raise self._cannot_plug(vif, f"the device {name} is {link.mark or link.kind or 'a NIC'}")
            if bridge is None:
                raise self._cannot_plug(vif, f"the bridge {vif.bridge} has gone")
            if not _configured(link, bridge, mark, vif.mtu):
                self._links.configure(name, ifalias=mark)
                self._links.without_ipv6(name)
                self._links.configure(name, mtu=vif.mtu, master=bridge.index, state="up")
        except LinkError as error:
            raise self._cannot_plug(vif, str(error)) from error

    def _remove(self, name: str) -> None:
        try:
            self._links.delete(name)
        except LinkError as error:
            log.error("left behind: %s", error)

    def _cannot_attach(self, bridge: str, why: str) -> ApiError:
        return ApiError("HOST_CANNOT_ATTACH_NETWORK", self._host, bridge, why)

    def _cannot_plug(self, vif: VifPlug, why: str) -> ApiError:
        return ApiError("CANNOT_PLUG_VIF", f"{vif.vm}/{vif.device}", why)


def usable(links: Links, prefix: str, token: str) -> str:
    """Makes a bridge and a tap and removes them again. "" when that worked, else why not."""
    bridge, tap = names.bridge_device(prefix, f"probe{token}"), names.tap_device(prefix, "probe", token)
    try:
        try:
            links.add_bridge(bridge, _mac(bridge))
            links.add_tap(tap)
        finally:
            for name in (tap, bridge):
                links.delete(name)
    except LinkError as error:
        return str(error)
    return ""


def _configured(link: Link | None, bridge: Link, mark: str, mtu: int) -> bool:
    return link is not None and (link.mark, link.master, link.mtu, link.up) == (mark, bridge.index, mtu, True)


def _mac(text: str) -> str:
    """A locally administered address that stays the same: a bridge without one takes that of its lowest port."""
    octets = bytearray(hashlib.sha256(text.encode()).digest()[:6])
    octets[0] = (octets[0] & 0xFC) | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)
