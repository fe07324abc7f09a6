"""The SR types that the conformance suite is run on. A new one is a line here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

from services.storage.live import Live
from services.storage.options import StorageOptions
from services.storage.plugins.bundled import bundled
from services.storage.plugins.interface import Plugin
from services.storage.plugins.lvm import LvmPlugin
from tests.storage.conformance.entry import DISKS, Entry, Medium
from tests.storage.conformance.loops import loop_device
from tests.storage.fake_lvm import FakeLvm
from tests.storage.smapiv3 import made as smapiv3
from tests.storage.support import MIB

ROOT = "" if os.geteuid() == 0 and Path("/dev/loop-control").exists() else "needs root and loop devices"


OURS = DISKS | {"copy", "repeat", "names", "uuids", "held", "introduce"}
"""What those have that come with the service and make disks."""


def ours(kind: str) -> Callable[[Path], Awaitable[Plugin]]:
    """A type that comes with the service, made as the service makes it. No hypervisor has disks open here."""

    async def make(state: Path) -> Plugin:
        return bundled(StorageOptions(), state, cast(Live, None))[kind]

    return make


@contextmanager
def nothing(_: Path) -> Iterator[Medium]:
    yield Medium({})


@contextmanager
def a_folder(folder: Path) -> Iterator[Medium]:
    place, away = folder / "sr", folder / "away"
    yield Medium({"location": str(place)}, lose=lambda: _move(place, away), heal=lambda: _move(away, place))
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def a_device(folder: Path) -> Iterator[Medium]:
    with loop_device(folder / "device", 12 * MIB) as loop:
        yield Medium({"device": loop.path}, lose=loop.vanish)


@contextmanager
def some_memory(_: Path) -> Iterator[Medium]:
    yield Medium({"size": str(4 * MIB)})


@contextmanager
def a_library(folder: Path) -> Iterator[Medium]:
    place, away = folder / "images", folder / "away"
    place.mkdir()

    def put(name: str, size: int) -> str:
        with (place / f"{name}.iso").open("wb") as image:
            image.truncate(size)
        return f"{name}.iso"

    location = {"location": str(place), "legacy_mode": "true"}
    yield Medium(location, lose=lambda: _move(place, away), heal=lambda: _move(away, place), put=put)


@contextmanager
def a_hub(folder: Path) -> Iterator[Medium]:
    """Into which devices can be plugged."""
    links = folder / "links"
    links.mkdir()
    with ExitStack() as plugged:

        def put(name: str, size: int) -> str:
            loop = plugged.enter_context(loop_device(folder / name, size))
            (links / name).symlink_to(loop.path)
            return str(links / name)

        yield Medium({"location": str(links)}, put=put)


async def logical_volumes(state: Path) -> Plugin:
    """LVM needs device mapper, which few test machines have: the plug-in is run on a fake of the programs."""

    async def blank(_: str) -> None:
        """Whatever it is called, it is there and holds nothing."""

    fake = FakeLvm(state.parent, extent=MIB)
    return LvmPlugin(fake, blank, fake.nodes)


@contextmanager
def a_disk_of_lvm(folder: Path) -> Iterator[Medium]:
    yield Medium({"device": "/dev/sdx"}, lose=lambda: (folder / "lvm.json").unlink())


def _move(source: Path, target: Path) -> None:
    if source.exists():
        source.rename(target)


ENTRIES: dict[str, Entry] = {
    "dummy": Entry(ours("dummy"), nothing, OURS | {"revert", "shared", "probe"}),
    "file": Entry(
        ours("file"),
        a_folder,
        OURS | {"revert", "shared", "lose"},
        wrong=[
            ({}, "SR_BACKEND_FAILURE_94"),
            ({"location": "relative"}, "SR_BACKEND_FAILURE_1"),
            ({"location": "/proc/nowhere/sr"}, "SR_BACKEND_FAILURE_61"),
        ],
    ),
    "ext": Entry(
        ours("ext"),
        a_device,
        OURS | {"revert", "shared", "probe", "lose"},
        wrong=[
            ({}, "SR_BACKEND_FAILURE_90"),
            ({"device": "sdb"}, "SR_BACKEND_FAILURE_91"),
            ({"device": "/dev/sdx,/dev/sdy"}, "SR_BACKEND_FAILURE_91"),
            ({"device": "/dev/null"}, "SR_BACKEND_FAILURE_91"),
            ({"device": "/dev/no such device; reboot"}, "SR_BACKEND_FAILURE_19"),
        ],
        requires=ROOT,
    ),
    "memory": Entry(
        ours("memory"),
        some_memory,
        OURS | {"revert", "probe", "limited"},
        wrong=[({"size": "a lot"}, "SR_BACKEND_FAILURE_1"), ({"size": "1MiB,exec"}, "SR_BACKEND_FAILURE_1")],
        requires=ROOT,
    ),
    "lvm": Entry(
        logical_volumes,
        a_disk_of_lvm,
        OURS | {"revert", "shared", "probe", "lose"},
        wrong=[
            ({}, "SR_BACKEND_FAILURE_90"),
            ({"device": "sdb"}, "SR_BACKEND_FAILURE_91"),
            ({"device": "/dev/sdb,--force"}, "SR_BACKEND_FAILURE_91"),
            ({"device": "/dev/sdb", "allocation": "some"}, "SR_BACKEND_FAILURE_1"),
        ],
    ),
    "iso": Entry(
        ours("iso"),
        a_library,
        frozenset({"introduce", "lose"}),
        wrong=[
            ({}, "SR_BACKEND_FAILURE_94"),
            ({"location": "relative", "legacy_mode": "true"}, "SR_BACKEND_FAILURE_226"),
            ({"location": "/no/such/folder"}, "SR_BACKEND_FAILURE_226"),
            ({"location": "server"}, "SR_BACKEND_FAILURE_225"),
            ({"location": "/images", "type": "cifs"}, "SR_BACKEND_FAILURE_225"),
            ({"location": "//server", "type": "cifs"}, "SR_BACKEND_FAILURE_225"),
            ({"location": "//server/share", "vers": "2.1"}, "SR_BACKEND_FAILURE_227"),
            ({"location": "server:/path", "nfsversion": "2"}, "SR_BACKEND_FAILURE_72"),
            ({"location": "/images", "type": "ftp"}, "SR_BACKEND_FAILURE_1"),
            ({"location": "/images", "iso_path": "../../etc"}, "SR_BACKEND_FAILURE_1"),
        ],
    ),
    "smapiv3": Entry(
        smapiv3.make,
        a_folder,
        DISKS | {"copy", "repeat", "shared", "names", "introduce", "probe", "revert", "lose"},
        wrong=[({}, "SR_BACKEND_FAILURE_94"), ({"location": "relative"}, "SR_BACKEND_FAILURE_1")],
    ),
    "udev": Entry(
        ours("udev"),
        a_hub,
        frozenset({"introduce"}),
        wrong=[({}, "SR_BACKEND_FAILURE_94"), ({"location": "dev/xapi"}, "SR_BACKEND_FAILURE_1")],
        requires=ROOT,
    ),
}
