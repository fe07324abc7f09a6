"""A hypervisor with one disk and no guest: a real QEMU, and `Live` by QMP as the VM service does it, only simpler.

The disk is exported by NBD, writable, so that QEMU holds its images as for a guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any, cast

from qemu.qmp import ExecuteError, QMPClient

from shared.contracts.storage import Backend
from shared.contracts.vm_disks import Chain
from shared.errors import ApiError
from tests.storage.images.world import run

DEVICE = "disk"


class Hypervisor:
    """`folder`: for sockets; its path has to be short. `dp`: whose disk it has open."""

    def __init__(self, folder: Path, dp: str) -> None:
        self._folder, self.dp = folder, dp
        self._qmp = QMPClient("images")
        self._process: asyncio.subprocess.Process | None = None
        self._count = 0
        self._added: list[str] = []
        self.calls: list[str] = []
        self.closed = ""
        """What is to be opened again when the disk is resumed."""

    @property
    def url(self) -> str:
        return f"nbd+unix:///{DEVICE}?socket={self._folder}/nbd"

    async def start(self, image: str) -> None:
        socket = str(self._folder / "qmp")
        await self._qmp.start_server(socket)
        self._process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-S", "-machine", "none", "-nodefaults"),
            *("-display", "none", "-chardev", f"socket,id=qmp,path={socket}", "-mon", "chardev=qmp,mode=control"),
        )
        await self._qmp.accept()
        await self._do("object-add", id="free", **{"qom-type": "throttle-group"})
        await self._do("nbd-server-start", addr={"type": "unix", "data": {"path": f"{self._folder}/nbd"}})
        await self._open(image)

    async def stop(self) -> None:
        """As kill -9."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        with contextlib.suppress(Exception):
            await self._qmp.disconnect()
        self._process = None
        self._qmp = QMPClient("images")
        for name in ("qmp", "nbd"):
            (self._folder / name).unlink(missing_ok=True)

    async def write(self, writes: list[tuple[int, int, int]]) -> None:
        """As a guest: (offset, length, byte) each."""
        commands = [part for at, length, value in writes for part in ("-c", f"write -P {value} {at} {length}")]
        await run("qemu-io", "-f", "raw", *commands, self.url)

    async def content(self, scratch: Path) -> bytes:
        target = scratch / "guest.raw"
        await run("qemu-img", "convert", "-f", "raw", "-O", "raw", self.url, str(target))
        return await asyncio.to_thread(target.read_bytes)

    async def _open(self, image: str) -> None:
        self._count += 1
        file = {"driver": "file", "filename": image}
        below = {"driver": "qcow2", "node-name": f"image-{self._count}", "file": file}
        await self._do(
            "blockdev-add", driver="throttle", **{"throttle-group": "free", "node-name": DEVICE, "file": below}
        )
        await self._export()

    async def _export(self) -> None:
        await self._do("block-export-add", id="guest", type="nbd", writable=True, **{"node-name": DEVICE})

    async def _stop_export(self) -> None:
        with self._qmp.listener("BLOCK_EXPORT_DELETED") as deleted:
            await self._do("block-export-del", id="guest", mode="hard")
            await deleted.get()

    async def _do(self, command: str, **arguments: Any) -> Any:
        try:
            return await self._qmp.execute(command, arguments)
        except ExecuteError as error:
            raise ApiError("INTERNAL_ERROR", str(error)) from error

    # -- `Live` ------------------------------------------------------------------------------------------------------

    async def chain(self, host: str, dp: str) -> Chain:
        if dp != self.dp or self._process is None or self.closed:
            return Chain()
        nodes = {node["node-name"]: node for node in await self._do("query-named-block-nodes")}
        if DEVICE not in nodes:
            return Chain()
        images, at = [], nodes[DEVICE]["image"]
        while at is not None:
            if at["format"] == "qcow2":
                images.append(_path(at["filename"]))
            at = at.get("backing-image")
        return Chain(images=images, virtual_size=nodes[DEVICE]["image"]["virtual-size"])

    async def snapshot(self, host: str, dp: str, overlay: str) -> None:
        self.calls.append("snapshot")
        await self._required(dp)
        self._count += 1
        name = f"image-{self._count}"
        top = await self._node((await self.chain(host, dp)).images[0])
        file = {"driver": "file", "filename": overlay}
        await self._do("blockdev-add", driver="qcow2", file=file, backing=None, **{"node-name": name})
        await self._do("blockdev-snapshot", node=top, overlay=name)
        self._added.append(name)

    async def commit(self, host: str, dp: str, top: str, base: str, backing: str = "") -> None:
        self.calls.append("commit")
        await self._required(dp)
        nodes = {"top-node": await self._node(top), "base-node": await self._node(base)}
        names = {"job-id": "commit", "device": DEVICE, "backing-file": backing}
        with self._qmp.listener("JOB_STATUS_CHANGE") as changes:
            await self._do("block-commit", **names, **nodes, **{"auto-dismiss": False})
            async for change in changes:
                data = cast(dict[str, str], change["data"])
                if data["status"] == "concluded":
                    break
        [job] = await self._do("query-jobs")
        await self._do("job-dismiss", id="commit")
        if job.get("error"):
            raise ApiError("INTERNAL_ERROR", job["error"])

    async def resize(self, host: str, dp: str, size: int) -> None:
        self.calls.append("resize")
        await self._required(dp)
        await self._stop_export()  # a guest's device lets its disk grow, an export does not
        await self._do("block_resize", size=size, **{"node-name": DEVICE})
        await self._export()

    async def pause(self, host: str, dp: str) -> None:
        self.calls.append("pause")
        await self._required(dp)
        self.closed = (await self.chain(host, dp)).images[0]
        await self._stop_export()
        await self._do("blockdev-del", **{"node-name": DEVICE})
        for node in await self._do("query-named-block-nodes"):
            if node["node-name"] in self._added:  # those that were opened by name stay open until they are closed
                await self._do("blockdev-del", **{"node-name": node["node-name"]})

    async def resume(self, host: str, dp: str, backend: Backend | None = None) -> None:
        self.calls.append("resume")
        if self._process is None:
            raise ApiError("DEVICE_NOT_ATTACHED", dp)
        if self.closed:
            await self._open(backend.path if backend else self.closed)
            self.closed = ""

    async def _required(self, dp: str) -> None:
        if dp != self.dp or self._process is None:
            raise ApiError("DEVICE_NOT_ATTACHED", dp)

    async def _node(self, image: str) -> str:
        """The node of an image that is open, by its path."""
        for node in await self._do("query-named-block-nodes"):
            if node["drv"] == "qcow2" and _path(node["file"]) == image:
                return str(node["node-name"])
        raise ApiError("INTERNAL_ERROR", f"{image} is not open")


def _path(filename: str) -> str:
    """QEMU describes an image that was opened without its backing file, and got it later, at length."""
    return str(json.loads(filename[5:])["file"]["filename"]) if filename.startswith("json:") else filename
