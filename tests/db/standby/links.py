"""Network namespaces whose only way out is a link that can be cut: in each of them one host's processes.

A broker that listens on the loopback address of this machine is reached through a relay, which listens in a namespace
of its own between all the others.

    host namespace 10.213.<n>.2 --veth-- 10.213.<n>.1 hub namespace: relay ..> 127.0.0.1:<port of the broker>
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

from pyroute2 import netns

PORT = 5672


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)


class Links:
    """`names`: of the hosts' namespaces."""

    def __init__(self, count: int) -> None:
        mark = f"{os.getpid():x}"
        self._hub = f"xapi-{mark}-hub"
        self.names = [f"xapi-{mark}-{number}" for number in range(count)]
        self._pairs = [(f"h{mark}{number}", f"p{mark}{number}") for number in range(count)]

    def make(self) -> None:
        """Raises `CalledProcessError`; `remove` is then called all the same."""
        for name in (self._hub, *self.names):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        for number, (name, (hub, end)) in enumerate(zip(self.names, self._pairs, strict=True)):
            _ip("link", "add", hub, "netns", self._hub, "type", "veth", "peer", "name", end, "netns", name)
            for namespace, link, last in ((self._hub, hub, 1), (name, end, 2)):
                _ip("-n", namespace, "address", "add", f"10.213.{number}.{last}/30", "dev", link)
                _ip("-n", namespace, "link", "set", link, "up")

    def remove(self) -> None:
        """All that was made; links go with their namespaces."""
        for name in (self._hub, *self.names):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True, timeout=10)

    def within(self, number: int) -> tuple[str, ...]:
        """What runs a command there."""
        return ("ip", "netns", "exec", self.names[number])

    def deafen(self, number: int) -> None:
        """What the host sends goes nowhere; what is sent to it arrives, until the sender misses its answers."""
        _ip("-n", self.names[number], "route", "add", "blackhole", f"10.213.{number}.1/32")

    def cut(self, number: int) -> None:
        _ip("-n", self._hub, "link", "set", self._pairs[number][0], "down")

    def heal(self, number: int) -> None:
        subprocess.run(
            ["ip", "-n", self.names[number], "route", "del", "blackhole", f"10.213.{number}.1/32"],
            check=False,
            capture_output=True,
            timeout=10,
        )
        _ip("-n", self._hub, "link", "set", self._pairs[number][0], "up")

    def url(self, number: int, broker: str) -> str:
        """The broker as the host reaches it."""
        parts = urlsplit(broker)
        user, _, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}@10.213.{number}.1:{PORT}"))

    @asynccontextmanager
    async def relay(self, broker: str) -> AsyncIterator[None]:
        parts = urlsplit(broker)
        listening = await asyncio.to_thread(self._listen)
        carried: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            upstream = await asyncio.open_connection(parts.hostname, parts.port)
            ways = [asyncio.create_task(_carry(reader, upstream[1])), asyncio.create_task(_carry(upstream[0], writer))]
            carried.update(ways)
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                carried.difference_update(ways)
                writer.close()
                upstream[1].close()

        server = await asyncio.start_server(accept, sock=listening)
        try:
            yield
        finally:
            server.close()
            for way in list(carried):
                way.cancel()
            await asyncio.sleep(0)

    def _listen(self) -> socket.socket:
        """A socket belongs to the namespace in which its thread was when it made it."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            netns.setns(self._hub)
            try:
                listening = socket.create_server(("0.0.0.0", PORT), backlog=16)
            finally:
                netns.setns(home)
        finally:
            os.close(home)
        listening.setblocking(False)
        return listening


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
