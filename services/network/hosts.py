"""What the network of one host does: on the kernel, in QEMU's own user mode, or nowhere at all.

Three kinds of host with one interface; the service does not ask which it has.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from services.network.configuration import Configuration, ConfigurationFile
from services.network.devices import Devices
from services.network.links import Link, LinkError, Links, speed
from shared.contracts.network import Interface, VifBackend, VifPlug
from shared.errors import ApiError, internal_error

log = logging.getLogger("network.host")

_VIRTUAL_NIC = "veth"
"""The one kind of virtual device that can be a machine's NIC: a container's end of a pair."""


class HostNetwork(Protocol):
    async def start(self) -> None: ...

    async def scan(self) -> list[Interface]: ...

    async def bridge_up(self, bridge: str, mtu: int) -> None: ...

    async def bridge_down(self, bridge: str) -> None: ...

    async def plug(self, vifs: Sequence[VifPlug]) -> list[VifBackend]: ...

    async def unplug(self, vm: str, devices: Sequence[str]) -> None: ...


class BridgedNetwork:
    """Bridges and taps. `refusal`: why this process may not make them; then calls fail with that. "" if it may."""

    def __init__(
        self,
        host: str,
        links: Links,
        devices: Devices,
        file: ConfigurationFile,
        interfaces: Sequence[str],
        refusal: str = "",
    ) -> None:
        self._host = host
        self._links = links
        self._devices = devices
        self._file = file
        self._interfaces = interfaces
        self._refusal = refusal
        self._configuration = Configuration()

    async def start(self) -> None:
        """Brings back the bridges of the last good configuration. One that fails does not keep the others down."""
        self._configuration = await self._links.run(self._file.read)
        if self._refusal:
            log.error("no bridges: %s", self._refusal)
            return
        for bridge, mtu in self._configuration.bridges.items():
            try:
                await self._links.run(partial(self._devices.bridge_up, bridge, mtu))
            except ApiError as error:
                log.error("the bridge %s cannot be brought back: %s", bridge, error)

    async def scan(self) -> list[Interface]:
        return await self._links.run(lambda: interfaces(self._links.all(), self._interfaces))

    async def bridge_up(self, bridge: str, mtu: int) -> None:
        self._refuse(bridge)
        await self._links.run(partial(self._devices.bridge_up, bridge, mtu))
        await self._remember({**self._configuration.bridges, bridge: mtu})

    async def bridge_down(self, bridge: str) -> None:
        try:
            gone = await self._links.run(lambda: self._devices.bridge_down(bridge))
        except LinkError as error:
            raise internal_error(error) from error
        if gone:
            await self._remember({name: mtu for name, mtu in self._configuration.bridges.items() if name != bridge})
        else:
            log.info("the bridge %s stays: it has ports, or was not made here", bridge)

    async def plug(self, vifs: Sequence[VifPlug]) -> list[VifBackend]:
        for vif in vifs:
            self._refuse(vif.bridge)
        return await self._links.run(lambda: self._devices.plug(vifs))

    async def unplug(self, vm: str, devices: Sequence[str]) -> None:
        if self._refusal:
            return  # there can be none
        try:
            await self._links.run(lambda: self._devices.unplug(vm, devices))
        except LinkError as error:
            raise internal_error(error) from error

    async def _remember(self, bridges: dict[str, int]) -> None:
        configuration = Configuration(bridges=bridges)
        if configuration != self._configuration:
            try:
                await self._links.run(lambda: self._file.write(configuration))
            except OSError as error:
                raise internal_error(f"cannot keep the network configuration: {error}") from error
            self._configuration = configuration

    def _refuse(self, bridge: str) -> None:
        if self._refusal:
            raise ApiError("HOST_CANNOT_ATTACH_NETWORK", self._host, bridge, self._refusal)


class UserNetwork:
    """For hosts without privileges: each QEMU translates addresses by itself; guests reach out, nobody reaches them."""

    def __init__(self, links: Links, interfaces: Sequence[str]) -> None:
        self._links = links
        self._interfaces = interfaces

    async def start(self) -> None:
        """Nothing to bring back."""

    async def scan(self) -> list[Interface]:
        return await self._links.run(lambda: interfaces(self._links.all(), self._interfaces))

    async def bridge_up(self, bridge: str, mtu: int) -> None:
        """There are no bridges; VIFs of any network get the same."""

    async def bridge_down(self, bridge: str) -> None:
        """Nothing to remove."""

    async def plug(self, vifs: Sequence[VifPlug]) -> list[VifBackend]:
        return [VifBackend(vm=vif.vm, device=vif.device, kind="user") for vif in vifs]

    async def unplug(self, vm: str, devices: Sequence[str]) -> None:
        """Nothing to remove."""


class SimulatedNetwork:
    """A host without a machine: one NIC, always the same."""

    def __init__(self, host: str, address: str) -> None:
        self._host = host
        self._address = address

    async def start(self) -> None:
        """Nothing to bring back."""

    async def scan(self) -> list[Interface]:
        octets = hashlib.sha256(self._host.encode()).digest()[:5]
        mac = ":".join(f"{octet:02x}" for octet in (0x02, *octets))
        return [Interface(device="eth0", mac=mac, mtu=1500, carrier=True, speed=1000, addresses=[f"{self._address}/8"])]

    async def bridge_up(self, bridge: str, mtu: int) -> None:
        """Simulated bridges are always there."""

    async def bridge_down(self, bridge: str) -> None:
        """Nothing to remove."""

    async def plug(self, vifs: Sequence[VifPlug]) -> list[VifBackend]:
        return [VifBackend(vm=vif.vm, device=vif.device, kind="none") for vif in vifs]

    async def unplug(self, vm: str, devices: Sequence[str]) -> None:
        """Nothing to remove."""


def interfaces(links: Sequence[Link], patterns: Sequence[str]) -> list[Interface]:
    """The host's NICs among all devices: physical ones, and virtual Ethernet ones whose name matches a pattern."""
    return [
        Interface(
            device=link.name,
            mac=link.mac,
            mtu=link.mtu,
            carrier=link.carrier,
            speed=speed(link.name),
            addresses=link.addresses,
        )
        for link in sorted(links, key=lambda link: link.name)
        if not link.loopback
        and (not link.kind or (link.kind == _VIRTUAL_NIC and any(fnmatch.fnmatch(link.name, p) for p in patterns)))
    ]
