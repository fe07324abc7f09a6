"""blktap's programs as drivers run them: in the mount namespace of a host."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from services.storage.nbd.address import Address
from services.storage.nbd.client import NbdClient
from services.storage.smapiv1.private_view import PrivateView
from services.storage.smapiv1.view import SystemView, environment

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces are root's")
MIB = 1 << 20


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Ended:
    status: int
    stdout: str
    stderr: str


class Host:
    """`run`: a program in the host's view. What it leaves behind is ended with the view."""

    def __init__(self, view: PrivateView) -> None:
        self.view = view

    async def run(self, *words: object, status: int = 0) -> str:
        ended = await self.ended(*words)
        assert ended.status == status, ended
        return ended.stdout.strip() if status == 0 else ended.stderr.strip()

    async def ended(self, *words: object) -> Ended:
        command = self.view.command([str(word) for word in words])
        ended = await asyncio.to_thread(
            subprocess.run, command, env=environment(""), capture_output=True, text=True, check=False
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    async def tap(self, command: str, served: Served, *words: object, status: int = 0) -> str:
        return await self.run("tap-ctl", command, "-p", served.pid, "-m", served.minor, *words, status=status)

    async def serve(self, args: str, *options: object) -> Served:
        """As drivers do."""
        minor = int((await self.run("tap-ctl", "allocate")).rpartition("-")[2])
        served = Served(int(await self.run("tap-ctl", "spawn")), minor, self.view)
        await self.tap("attach", served)
        await self.tap("open", served, "-a", args, *options)
        return served

    async def end(self, served: Served) -> None:
        await self.tap("close", served, "-t", 120)
        await self.tap("detach", served)
        await self.run("tap-ctl", "free", "-m", served.minor)


@dataclass
class Served:
    pid: int
    minor: int
    view: PrivateView

    @property
    def socket(self) -> str:
        """Seen from outside."""
        return self.view.outside(f"/run/blktap-control/nbd{self.pid}.{self.minor}")

    async def connect(self) -> NbdClient:
        return await NbdClient.connect(Address(path=self.socket, export="any name"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    folder = tmp_path_factory.mktemp("shims") / "view"
    view = PrivateView(folder, "", "/opt/xensource/sm", SystemView(folder / "state"))
    await view.open()
    yield Host(view)
    await view.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sr").mkdir()
    return tmp_path / "sr"
