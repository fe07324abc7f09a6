"""kill -9 of the service at every step of everything that is done to images: nothing is lost, nothing is left."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from services.storage.plugins.file.changes import BLOCK
from services.storage.plugins.file.plugin import FilePlugin
from services.storage.plugins.file.qemu_img import QemuImg
from services.storage.plugins.interface import Domain, Handle, NewVolume
from shared.errors import ApiError
from tests.storage.images.dying import Death
from tests.storage.images.pretended import Pretended
from tests.storage.images.world import CLUSTER, World, read_disk, rounds
from tests.storage.support import HOST_A, SR

VM = Domain(host=HOST_A, dp="vbd/vm/0")
NEW = NewVolume(uuid="11111111-1111-4111-8111-111111111111")
SIZE = 8 * CLUSTER
STRIDE = 1 if rounds(0) else 5
"""Of so many points one is tried, unless XAPI_IMAGE_ROUNDS is given."""

Act = Callable[[FilePlugin, Handle, dict[str, str]], Awaitable[object]]


@dataclass(frozen=True)
class Scenario:
    """What is done to a disk `disk` with snapshots `first` and `second`. `branch`: of which disk it makes the disk NEW.
    `gives`: what `disk` holds then, "" for no change. `gone`: disks that there are no more.
    """

    act: Act
    branch: str = ""
    gives: str = ""
    gone: tuple[str, ...] = ()
    grows: bool = False


async def _coalesce(plugin: FilePlugin, sr: Handle, keys: dict[str, str]) -> None:
    await plugin.volume.destroy(sr, keys["first"])
    await plugin.coalesce(sr)


SCENARIOS = {
    "create": Scenario(lambda plugin, sr, keys: plugin.volume.create(sr, NEW, SIZE), branch="empty"),
    "snapshot": Scenario(lambda plugin, sr, keys: plugin.volume.snapshot(sr, keys["disk"], NEW), branch="disk"),
    "clone": Scenario(lambda plugin, sr, keys: plugin.volume.clone(sr, keys["disk"], NEW), branch="disk"),
    "destroy": Scenario(lambda plugin, sr, keys: plugin.volume.destroy(sr, keys["second"]), gone=("second",)),
    "revert": Scenario(lambda plugin, sr, keys: plugin.volume.revert(sr, keys["first"], keys["disk"]), gives="first"),
    "resize": Scenario(lambda plugin, sr, keys: plugin.volume.resize(sr, keys["disk"], 2 * SIZE), grows=True),
    "data_destroy": Scenario(lambda plugin, sr, keys: plugin.volume.data_destroy(sr, keys["second"]), gone=("second",)),
    "reset": Scenario(lambda plugin, sr, keys: plugin.volume.epoch(sr, keys["disk"], "vm", True, False)),
    "coalesce": Scenario(_coalesce, gone=("first",)),
}
RUNNING = {name: SCENARIOS[name] for name in ("snapshot", "clone", "resize", "coalesce")}


@dataclass(frozen=True)
class Prepared:
    """`held`: what the disks hold. `then`: what they held when the crash came."""

    folder: Path
    keys: dict[str, str]
    held: dict[str, bytes]
    then: dict[str, bytes]


def make_plugin(hypervisor: Pretended | None = None) -> FilePlugin:
    return FilePlugin(QemuImg("qemu-img", 60.0), 5.0, hypervisor)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A tracked disk with two snapshots and an image that is to be merged, all with different content."""
    return asyncio.run(_prepare(tmp_path_factory.mktemp("crashes")))


async def _prepare(tmp_path: Path) -> Prepared:
    plugin = make_plugin()
    folder = tmp_path / "prepared"
    configuration = await plugin.sr.create(SR, {"location": str(folder)}, "", "")
    sr = await plugin.sr.attach(SR, configuration, HOST_A)
    world = World(plugin, sr, tmp_path, random.Random(7))
    disk = await world.create(SIZE)
    await world.write(disk)
    await world.track(disk)
    snapshots = []
    for _ in range(3):
        snapshots.append(await world.snapshot(disk))
        await world.write(disk)
    await world.destroy(snapshots[0])
    await plugin.close()
    keys = {"disk": disk, "first": snapshots[1], "second": snapshots[2]}
    held = {name: bytes(world.disks[key]) for name, key in keys.items()}
    held["empty"] = bytes(SIZE)
    return Prepared(folder, keys, held, held)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_crash_loses_nothing_and_leaves_nothing(tmp_path: Path, prepared: Prepared, name: str) -> None:
    scenario, died, steps = SCENARIOS[name], True, count(1 + len(name) % STRIDE, STRIDE)
    while died:
        step = next(steps)
        folder = tmp_path / f"at-{step}"
        shutil.copytree(prepared.folder, folder)
        died = await _run(scenario, make_plugin(), folder, prepared.keys, Death(step))
        plugin = make_plugin()
        sr = await plugin.sr.attach(SR, {"location": str(folder)}, HOST_A)
        await _consistent(plugin, sr, scenario, prepared, done=not died)
        await plugin.coalesce(sr)
        await _consistent(plugin, sr, scenario, prepared, done=not died)
        await plugin.close()


@pytest.mark.parametrize("end", ["goes on", "ends"])
@pytest.mark.parametrize("name", RUNNING)
async def test_a_crash_below_a_running_guest_loses_nothing(
    tmp_path: Path, prepared: Prepared, name: str, end: str
) -> None:
    """The guest writes before the service is there again; then it goes on, or ends before anybody could ask it."""
    scenario, died, steps = RUNNING[name], True, count(1 + len(name + end) % STRIDE, STRIDE)
    while died:
        step = next(steps)
        folder = tmp_path / f"at-{step}"
        shutil.copytree(prepared.folder, folder)
        hypervisor = Pretended(VM.dp)
        plugin = make_plugin(hypervisor)
        sr = await plugin.sr.attach(SR, {"location": str(folder)}, HOST_A)
        uri = (await plugin.volume.stat(sr, prepared.keys["disk"])).uri[0]
        await plugin.datapath.activate(uri, VM)
        hypervisor.open(folder, plugin.attached(sr).folder.chain(prepared.keys["disk"]))
        hypervisor.death = Death(step)
        died = await _run(scenario, plugin, folder, prepared.keys, hypervisor.death)
        hypervisor.death = None
        held = dict(prepared.held)
        if hypervisor.images:
            await hypervisor.write([(CLUSTER, 4096, 77)])
            held["disk"] = held["disk"][:CLUSTER] + b"\x4d" * 4096 + held["disk"][CLUSTER + 4096 :]
        after = replace(prepared, held=held)
        plugin = make_plugin(hypervisor)
        sr = await plugin.sr.attach(SR, {"location": str(folder)}, HOST_A)
        if end == "ends":
            hypervisor.images, hypervisor.paused = [], ""
            await plugin.datapath.deactivate(uri, VM)
        await _consistent(plugin, sr, scenario, after, done=not died)
        await plugin.coalesce(sr)
        assert not hypervisor.paused
        await _consistent(plugin, sr, scenario, after, done=not died)
        if end == "goes on":
            names = plugin.attached(sr).folder.chain(prepared.keys["disk"])
            assert hypervisor.images == [str(folder / f"{name}.qcow2") for name in names]
        await plugin.close()


async def _run(scenario: Scenario, plugin: FilePlugin, folder: Path, keys: dict[str, str], death: Death) -> bool:
    """True: it died on the way."""
    sr = await plugin.sr.attach(SR, {"location": str(folder)}, HOST_A)
    with death.coming():
        await scenario.act(plugin, sr, keys)
    await plugin.close()
    return death.happened


async def _consistent(plugin: FilePlugin, sr: Handle, scenario: Scenario, prepared: Prepared, *, done: bool) -> None:
    folder = plugin.attached(sr).folder
    listed = {volume.key: volume for volume in await plugin.sr.ls(sr)}
    for name, key in prepared.keys.items():
        if name in scenario.gone and (key not in listed or folder.read_sidecar(key).empty):
            continue
        assert name not in scenario.gone or not done, name
        found = read_disk(folder, key)
        allowed = [prepared.held[name]] if not done or name != "disk" or not scenario.gives else []
        if name == "disk" and scenario.gives:
            allowed.append(prepared.held[scenario.gives])
        if name == "disk" and scenario.grows:
            assert len(found) == 2 * SIZE or not done
            found = found[:SIZE]
        assert found in allowed, name
    if scenario.branch:
        assert NEW.uuid in listed or not done
    others = set(listed) - set(prepared.keys.values())
    assert others <= ({NEW.uuid} if scenario.branch else set())
    for key in others:
        assert read_disk(folder, key) == prepared.then[scenario.branch]
    await _changes_are_told(plugin, sr, prepared, set(listed), done=done and not scenario.gives)
    tree = folder.tree()
    assert tree.damaged == []
    assert {image for key in listed for image in tree.chain_of(key)} == set(folder.names()[0])
    assert not list(folder.path.glob(".tmp-*"))


async def _changes_are_told(
    plugin: FilePlugin, sr: Handle, prepared: Prepared, listed: set[str], *, done: bool
) -> None:
    """Or it is said that they are not known. `done`: they must be."""
    held = read_disk(plugin.attached(sr).folder, prepared.keys["disk"])
    for name in ("first", "second"):
        if prepared.keys[name] not in listed:
            continue
        try:
            said = await plugin.volume.changed_blocks(sr, prepared.keys[name], prepared.keys["disk"])
        except ApiError as error:
            if error.code == "VDI_IN_USE" or (error.code == "SR_BACKEND_FAILURE_460" and not done):
                continue
            raise
        before = prepared.then[name].ljust(len(held), b"\0")
        for number, at in enumerate(range(0, len(held), BLOCK)):
            told = said.bitmap[number // 8] >> 7 - number % 8 & 1
            assert told or before[at : at + BLOCK] == held[at : at + BLOCK], (name, number)
