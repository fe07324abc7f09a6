"""Network devices of the kernel, through netlink. All calls block; `Links.run` does them in one thread of its own."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from shared.bus.contract import Record

Result = TypeVar("Result")

_UP = 1 << 0
"""IFF_UP."""


class LinkError(Exception):
    """The kernel refused; the text says what and why. `errno` as usual."""

    def __init__(self, what: str, number: int | None) -> None:
        self.errno = number or 0
        super().__init__(f"{what}: {os.strerror(number) if number else 'unknown error'}")


class Link(Record, frozen=True):
    """`kind`: "bridge", "tun", "veth" ...; "" for a physical device. `mark`: its `ifalias`.

    `master`: index, 0 for none. `carrier`: of a tap: a process has it open.
    """

    index: int
    name: str
    kind: str
    mark: str
    mac: str
    mtu: int
    master: int
    up: bool
    carrier: bool
    loopback: bool = False
    addresses: list[str] = []


class Links:
    """`enter`: called first in the thread that does everything, so that a test can put it in a network namespace."""

    def __init__(self, enter: Callable[[], None] = lambda: None) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netlink", initializer=enter)
        self._socket: Any = None
        self._loop: asyncio.SelectorEventLoop | None = None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Work in the netlink thread, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """A service need not: its last calls may still be running, and an idle thread ends with the process."""
        await self.run(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._loop is not None:
            self._loop.run_until_complete(asyncio.sleep(0))  # the socket's last callbacks
            self._loop.close()
            self._loop = None

    @property
    def _ip(self) -> Any:
        if self._socket is None:
            # pyroute2 runs a loop of its own; uvloop, where it is the default, knows no netlink sockets
            self._loop = asyncio.SelectorEventLoop()
            self._socket = IPRoute(use_event_loop=self._loop)
        return self._socket

    # -- in the thread -----------------------------------------------------------------------------------------------

    def find(self, name: str) -> Link | None:
        try:
            return _link(self._ip.link("get", ifname=name)[0])
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise LinkError(f"looking for {name}", error.code) from error

    def all(self) -> list[Link]:
        """Every device, with its addresses."""
        addresses: dict[int, list[str]] = {}
        for address in self._ip.get_addr():
            text = f"{address.get('address')}/{address['prefixlen']}"
            addresses.setdefault(address["index"], []).append(text)
        return [_link(message, addresses.get(message["index"], [])) for message in self._ip.get_links()]

    def add_bridge(self, name: str, mac: str) -> None:
        """Without spanning tree, without delay for new ports, without multicast filtering."""
        options = {"br_stp_state": 0, "br_forward_delay": 0, "br_mcast_snooping": 0}
        self._do(f"making the bridge {name}", "add", ifname=name, kind="bridge", address=mac, **options)

    def add_tap(self, name: str) -> None:
        """It stays until it is deleted, whoever opens it."""
        self._do(f"making the tap {name}", "add", ifname=name, kind="tuntap", mode="tap")

    def configure(self, name: str, **settings: str | int) -> None:
        """`ifalias`, `mtu`, `master` (index), `state` ("up" | "down")."""
        link = self.find(name)
        if link is None:
            raise LinkError(f"configuring {name}", errno.ENODEV)
        self._do(f"configuring {name}", "set", index=link.index, **settings)

    def delete(self, name: str) -> bool:
        """False: there was none."""
        link = self.find(name)
        if link is None:
            return False
        try:
            self._do(f"removing {name}", "del", index=link.index)
        except LinkError as error:
            if error.errno != errno.ENODEV:
                raise
        return True

    def without_ipv6(self, name: str) -> None:
        """The kernel gives every device that comes up an address; what only forwards frames shall have none."""
        setting = Path("/proc/sys/net/ipv6/conf") / name / "disable_ipv6"
        try:
            setting.write_text("1")
        except FileNotFoundError:
            return  # a kernel without IPv6
        except OSError as error:
            if error.errno != errno.EROFS:  # containers: the address stays, and does no harm
                raise LinkError(f"configuring {name}", error.errno) from error

    def _do(self, what: str, *command: str, **arguments: str | int) -> None:
        try:
            self._ip.link(*command, **arguments)
        except NetlinkError as error:
            raise LinkError(what, error.code) from error
        except OSError as error:  # /dev/net/tun
            raise LinkError(what, error.errno) from error


def speed(device: str) -> int:
    """Mbit/s; 0 where the driver does not tell."""
    try:
        return max(0, int(Path(f"/sys/class/net/{device}/speed").read_text()))
    except (OSError, ValueError):
        return 0


def _link(message: Any, addresses: list[str] | None = None) -> Link:
    info = message.get("linkinfo")
    return Link(
        index=message["index"],
        name=message.get("ifname"),
        kind=(info.get("kind") or "") if info else "",
        mark=message.get("ifalias") or "",
        mac=message.get("address") or "",
        mtu=message.get("mtu") or 0,
        master=message.get("master") or 0,
        up=bool(message["flags"] & _UP),
        carrier=bool(message.get("carrier")),
        loopback=bool(message["flags"] & (1 << 3)),
        addresses=addresses or [],
    )
