"""Mounting a medium: for a host, where QEMU finds its disks and the next run of the service finds the mount again, and
for a look at it, where nobody else sees it.

What is mounted is always asked of the kernel (/proc/self/mountinfo), never remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from services.storage.plugins.errors import Failure, backend_failure, plugin_failed
from services.storage.plugins.program import Output, end, find, run, start
from shared.bus.contract import Record

log = logging.getLogger("storage.mount")

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(Record, frozen=True):
    """What mount(8) is told. `helper`: the program that the file system type needs, "" for none. `environment`: for
    the helper alone; the only place for a secret. `visiting`: more options, for a look at the medium.
    """

    kind: str
    source: str
    options: tuple[str, ...] = ()
    helper: str = ""
    environment: dict[str, str] = {}
    visiting: tuple[str, ...] = ()

    def arguments(self, place: Path) -> list[str]:
        options = ["-o", ",".join(self.options)] if self.options else []
        return ["mount", "-t", self.kind, *options, "--", self.source, str(place)]


class Mounted(Record, frozen=True):
    """A line of mountinfo. `device`: major and minor number."""

    place: str
    kind: str
    source: str
    device: tuple[int, int]


def parse_mountinfo(text: str) -> list[Mounted]:
    """proc_pid_mountinfo(5). What is mounted over something else comes after it."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind_and_source = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(kind_and_source) < 2:
            continue
        major, _, minor = fields[2].partition(":")
        found.append(
            Mounted(
                place=_plain(fields[4]),
                kind=kind_and_source[0],
                source=_plain(kind_and_source[1]),
                device=(int(major), int(minor)),
            )
        )
    return found


def _plain(field: str) -> str:
    return _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), field)


def mounts() -> list[Mounted]:
    return parse_mountinfo(_MOUNTINFO.read_text(errors="surrogateescape"))


def mounted_at(place: Path) -> Mounted | None:
    """What one sees there: the last that was mounted on it."""
    return next((found for found in reversed(mounts()) if found.place == str(place)), None)


class Failures(Record, frozen=True):
    """The numbers of an SR type's failures to mount and to unmount."""

    mount: Failure
    unmount: Failure


async def ensure(mount: Mount, place: Path, same: Callable[[Mounted], bool], failures: Failures) -> bool:
    """Mounts it there, unless it is. True: it was not. `same`: whether that, which is mounted, is this medium.

    Something else that is mounted there is what a crash left of an earlier configuration, and makes room.
    """
    found = mounted_at(place)
    if found is not None:
        if same(found):
            return False
        log.warning(
            "%s of type %s is mounted on %s; it makes room for %s", found.source, found.kind, place, mount.source
        )
        await release(place, failures)
    await asyncio.to_thread(place.mkdir, 0o700, parents=True, exist_ok=True)
    try:
        check(mount, await run(_helped(mount).arguments(place), mount.environment), failures)
    except BaseException:
        await asyncio.to_thread(_remove_folder, place)
        raise
    return True


async def release(place: Path, failures: Failures) -> None:
    """Unmounts whatever is mounted there, never lazily. Raises SR_BACKEND_FAILURE_<n>, when it is in use."""
    while mounted_at(place) is not None:
        output = await run(["umount", "--no-canonicalize", "--", str(place)])
        if output.status and mounted_at(place) is not None:
            raise backend_failure(failures.unmount, f"cannot unmount {place}", output.words)
    await asyncio.to_thread(_remove_folder, place)


@asynccontextmanager
async def visit(mount: Mount, place: Path, failures: Failures) -> AsyncIterator[Path]:
    """The medium, mounted in a mount namespace of its own; yields where this process finds it.

    The namespace, and with it the mount, ends with the process that holds it, and that one with this process: nothing
    is left of a visit, however it ends. All visits can thus have the same `place`, an empty folder. What is unmounted
    for everybody is unmounted there too, so a long visit keeps no other SR's medium busy.
    """
    command = msgspec.structs.replace(_helped(mount), options=mount.options + mount.visiting).arguments(place)
    await asyncio.to_thread(place.mkdir, 0o700, parents=True, exist_ok=True)
    holder = await start(["unshare", "--mount", "--propagation", "slave", "cat"], stdin=asyncio.subprocess.PIPE)
    try:
        await _ready(holder)
        inside = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--", find(command[0])]
        check(mount, await run([*inside, *command[1:]], mount.environment), failures)
        yield Path(f"/proc/{holder.pid}/root{place}")
    finally:
        await end(holder)


async def _ready(holder: asyncio.subprocess.Process) -> None:
    """Waits until the program runs in its namespace: it echoes then."""
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        holder.stdin.write(b"\n")
        await holder.stdin.drain()
        echo = await holder.stdout.readline()
    except (BrokenPipeError, ConnectionResetError):
        echo = b""
    if not echo:
        reason = (await holder.stderr.read()).decode(errors="replace").strip()
        raise plugin_failed("cannot make a mount namespace; that needs root", reason)


def check(mount: Mount, output: Output, failures: Failures) -> None:
    if output.status:
        raise backend_failure(failures.mount, f"cannot mount {mount.source}", output.words)


def _helped(mount: Mount) -> Mount:
    """Raises SR_BACKEND_FAILURE without the helper: mount(8) itself does not say what is missing."""
    if mount.helper:
        find(mount.helper)
    return mount


def _remove_folder(place: Path) -> None:
    """Refused by the kernel while something is mounted on it, or in it."""
    try:
        place.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("the mount point %s stays: %s", place, error.strerror)


def sweep(root: Path) -> None:
    """Removes what a killed process has left of mount points, `<root>/<host>/<SR>`: folders that are empty, on which
    nothing is mounted. The kernel refuses the others, without a look at what is mounted there.
    """
    for host in _folders(root):
        for place in _folders(host):
            with contextlib.suppress(OSError):
                place.rmdir()
        with contextlib.suppress(OSError):
            host.rmdir()


def _folders(path: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(path)]
    except OSError:  # it is not there, or no folder
        return []


def device_number(device: str) -> tuple[int, int] | None:
    """None: there is no such device."""
    try:
        number = os.stat(device).st_rdev
    except OSError:
        return None
    return os.major(number), os.minor(number)
