"""A mount namespace for the drivers of one host, so that several hosts of a pool can run on one machine.

Drivers know their files by fixed paths. In the namespace those paths are folders of the host: a file system in memory
at `folder`, that everybody sees. What drivers mount below it is seen outside, too: QEMU and the service open disks by
the paths there (`outside`). The namespace is kept by a bind mount of itself (`folder/ns`), so that it outlives the
service, and goes with the machine, or when `folder` is unmounted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from services.storage.plugins.errors import plugin_failed
from services.storage.smapiv1 import error_codes, inhabitants, mounts, process
from services.storage.smapiv1.view import HERE, OVER, UNDER, SystemView, View
from shared.driver_view import entered, is_kept

log = logging.getLogger("storage.smapiv1")

SHARED: Final = {
    "/run/sr-mount": "sr-mount",
    "/run/sr-ref": "sr-ref",
    "/run/sm": "sm",
    "/run/nonpersistent": "nonpersistent",
    "/run/blktap-control": "blktap-control",
    "/run/lock/sm": "lock",
    "/var/lib/xcp": "xcp",
    "/dev/sm": "dev-sm",
    "/dev/xen": "dev-xen",
}
"""Folders that drivers know by fixed names, and what they are called below `folder/run`."""
INVENTORY: Final = "/etc/xensource-inventory"
_DRIVERS: Final = "/opt/xensource/sm"
_ERROR_CODES: Final = "/usr/share/sm"
_FURNISH: Final = HERE / "furnish.py"
_LINKS: Final = 16
"""Links that are followed to find a path."""


def remove(folder: Path) -> None:
    """What runs there, what is mounted there, and the folder. Raises OSError."""
    namespace = folder / "ns"
    if is_kept(namespace) and (count := inhabitants.end(namespace)):
        log.info("%d processes that drivers left running are ended", count)
    mounts.remove_tree(folder)


class PrivateView:
    """`system`: what is used where namespaces cannot be had."""

    def __init__(self, folder: Path, socket: str, drivers: str, system: SystemView) -> None:
        self._folder = folder
        self._socket = socket
        self._drivers = drivers
        self._fallback: View | None = None
        self._system = system

    @property
    def state(self) -> Path:
        return self._folder / "state"

    async def open(self) -> None:
        """Finds the one again that a killed service has left, or makes one."""
        if is_kept(self._folder / "ns"):
            return
        try:
            mounts.remove_tree(self._folder)
            self._lay_out()
            await self._unshare()
        except OSError as error:
            log.warning("drivers of SMAPIv1 share the machine's paths, since no mount namespace can be made: %s", error)
            mounts.remove_tree(self._folder)
            self._fallback = self._system
            await self._system.open()

    def _lay_out(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        mounts.memory(self._folder)
        run = self._folder / "run"
        run.mkdir()
        mounts.share(run)
        for name in SHARED.values():
            (run / name).mkdir()
        (run / "dev-xen" / "blktap-2").mkdir()
        (run / "nonpersistent" / "sm").mkdir()
        if self._socket:
            (run / "xcp" / "xapi").symlink_to(Path(self._socket).absolute())
        (run / "xcp" / "toolstack").symlink_to(HERE.parents[2])
        (self._folder / "inventory").touch()
        (self._folder / "share").mkdir()
        (self._folder / "share" / "XE_SR_ERRORCODES.xml").write_text(error_codes.document())
        (self._folder / "ns").touch()
        self.state.mkdir()

    async def _unshare(self) -> None:
        spec = {
            "keep_shared": str(self._folder / "run"),
            "folders": {
                **{inside: str(self._folder / "run" / name) for inside, name in SHARED.items()},
                **({} if self._drivers == _DRIVERS else {_DRIVERS: self._drivers}),
                _ERROR_CODES: str(self._folder / "share"),
            },
            "files": {INVENTORY: str(self._folder / "inventory")},
            "overlays": {
                inside: [f"{OVER}{inside}", inside, f"{UNDER}{inside}"] for inside in ("/usr/bin", "/usr/sbin")
            },
        }
        ended = await process.run(
            [
                *("unshare", f"--mount={self._folder / 'ns'}", "--propagation", "unchanged"),
                *(sys.executable, "-I", str(_FURNISH), json.dumps(spec)),
            ],
            {"PATH": os.environ.get("PATH", os.defpath)},
        )
        if ended.trouble:
            raise OSError(f"{ended.trouble}: {ended.stderr.strip()}")
        for line in ended.stderr.splitlines():
            log.warning("drivers of SMAPIv1: %s", line)

    def command(self, words: Sequence[str]) -> list[str]:
        if self._fallback is not None:
            return self._fallback.command(words)
        return entered(self._folder / "ns", words)

    def outside(self, path: str) -> str:
        """Links are followed as they are seen inside: their targets are fixed paths, too."""
        if self._fallback is not None:
            return self._fallback.outside(path)
        steps, here, links = deque(Path(path).parts[1:]), "/", 0
        while steps:
            ahead = os.path.normpath(os.path.join(here, steps.popleft()))
            try:
                target = os.readlink(self._place(ahead))
            except OSError:  # no link, or not there yet
                here = ahead
                continue
            if (links := links + 1) > _LINKS:
                raise plugin_failed(f"{path}: too many links")
            here = os.path.normpath(os.path.join(here, target))
            steps, here = deque([*Path(here).parts[1:], *steps]), "/"
        return self._place(here)

    def _place(self, path: str) -> str:
        """Of a path without links."""
        for inside, name in SHARED.items():
            if path == inside or path.startswith(f"{inside}/"):
                return f"{self._folder}/run/{name}{path.removeprefix(inside)}"
        return path

    def describe(self, inventory: Mapping[str, str]) -> None:
        """In place: the file is bound where drivers read it."""
        text = "".join(f"{key}='{value}'\n" for key, value in inventory.items())
        if self._fallback is None:
            (self._folder / "inventory").write_text(text)

    async def close(self) -> None:
        await asyncio.to_thread(remove, self._folder)
