"""The SR type `lvm` on LVM itself, where that is installed, as far as it goes without device mapper.

LVM reads all options and keeps its metadata on the devices then; volumes cannot be activated, and there are no pools.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.storage.plugins import lvm_commands as commands
from services.storage.plugins.interface import Domain, NewVolume
from services.storage.plugins.lvm import LvmPlugin
from services.storage.plugins.program import SYSTEM_PATH, Output, run
from shared.errors import ApiError
from tests.storage.conformance.loops import Loop, loop_device
from tests.storage.support import HOST_A, MIB, SR, new, new_uuid

pytestmark = pytest.mark.skipif(
    shutil.which("lvm", path=SYSTEM_PATH) is None or os.geteuid() != 0, reason="lvm2 is not installed, or not root"
)


class Metadata:
    """LVM that is shown two devices and no kernel driver."""

    def __init__(self, folder: Path, devices: list[Loop]) -> None:
        shown = ",".join(f'"a|^{device.path}$|"' for device in devices)
        self._config = (
            f'devices{{use_devicesfile=0 filter=[{shown},"r|.*|"] obtain_device_list_from_udev=0 '
            f'external_device_info_source="none"}} global{{locking_dir="{folder}"}} backup{{backup=0 archive=0}}'
        )

    async def __call__(self, arguments: list[str]) -> Output:
        if arguments[0] != "lvm":
            return Output(0, "", "")
        return await run([*arguments[:2], "--driverloaded", "n", *arguments[2:], "--config", self._config])


async def unasked(_: str) -> None:
    """The devices are blank."""


@pytest.fixture
async def lvm(tmp_path: Path) -> AsyncIterator[tuple[LvmPlugin, Metadata, str]]:
    with ExitStack() as stack:
        devices = [stack.enter_context(loop_device(tmp_path / name, 128 * MIB)) for name in ("one", "other")]
        metadata = Metadata(tmp_path, devices)
        yield LvmPlugin(metadata, unasked, machine="this"), metadata, ",".join(device.path for device in devices)


async def test_a_thick_sr_lives_in_lvm_s_metadata(lvm: tuple[LvmPlugin, Metadata, str]) -> None:
    plugin, metadata, devices = lvm
    configuration = {"device": devices, "allocation": "thick"}
    assert [found.uuid for found in await plugin.sr.probe(configuration)] == [""]
    await plugin.sr.create(SR, configuration, "", "")
    assert [found.uuid for found in await plugin.sr.probe(configuration)] == [SR]
    sr = await plugin.sr.attach(SR, configuration, HOST_A)
    name = "ünï\n\0,@'\"" + "a" * 3000
    made = await plugin.volume.create(sr, NewVolume(uuid=new_uuid(), name=name, sharable=True), 5 * MIB)
    assert (made.virtual_size, made.name, made.sharable) == (8 * MIB, name, True)
    grown = await plugin.volume.resize(sr, made.key, 9 * MIB)
    assert (grown.virtual_size, grown.name) == (12 * MIB, name)
    await plugin.volume.set(sr, made.key, {"k": "v"})
    domain = Domain(host=HOST_A, dp="vbd/vm/0")
    await plugin.group(SR).hold(await plugin.group(SR).disk(made.key), [commands.Holder(HOST_A, domain.dp, True)])
    assert [held.dp for held in await plugin.datapath.held(sr)] == [domain.dp]
    assert await plugin.datapath.fence(sr, HOST_A) == 1
    [listed] = await plugin.sr.ls(sr)
    assert (listed.key, listed.keys) == (made.key, {"k": "v"})
    with pytest.raises(ApiError, match="SR_FULL"):
        await plugin.volume.create(sr, new(), 1 << 40)
    stranger = LvmPlugin(metadata, unasked, machine="another")
    with pytest.raises(ApiError, match="belongs to another machine"):
        await stranger.sr.attach(SR, configuration, HOST_A)
    await plugin.volume.destroy(sr, made.key)
    await plugin.sr.destroy(sr)
    assert [found.uuid for found in await plugin.sr.probe(configuration)] == [""]
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_19"):
        await plugin.sr.probe({"device": "/dev/no-such-device"})


async def test_lvm_takes_the_options_for_thin_volumes(lvm: tuple[LvmPlugin, Metadata, str]) -> None:
    """What it refuses is the kernel that is not there, and the volumes that are not there then."""
    plugin, metadata, devices = lvm
    await plugin.sr.create(SR, {"device": devices, "allocation": "thick"}, "", "")
    group = plugin.group(SR).name
    tags = commands.label_tags(commands.Label(uuid=SR))
    for command, words in (
        (commands.create_pool(group), "without using device-mapper kernel driver"),
        (commands.create_volume(group, "LV-x", MIB, tags, thin=True), "Pool thin-pool not found"),
        (commands.branch_volume(group, "LV-x", "LV-y", tags, writable=False), "LV-x not found"),
        (commands.activate_volume(group, "LV-x"), 'Failed to find logical volume "'),
        (commands.deactivate_volume(group, "LV-x"), 'Failed to find logical volume "'),
        (commands.resize_volume(group, "LV-x", MIB), "LV-x not found"),
        (commands.fail_when_full(group), 'Failed to find logical volume "'),
    ):
        refused = await metadata(command)
        assert words in refused.stderr, command
