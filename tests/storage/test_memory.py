"""The SR type `memory`: its size, and how long its disks last."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from services.storage.live import Live
from services.storage.options import StorageOptions
from services.storage.plugins.bundled import bundled
from services.storage.plugins.interface import Plugin
from services.storage.plugins.memory import size_of
from services.storage.plugins.mounted_point import mounted_at
from services.storage.plugins.program import run
from shared.errors import ApiError
from tests.storage.support import HOST_A, MIB, SR, new

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
SMALL = {"size": "8MiB"}


@pytest.fixture
async def plugin(tmp_path: Path) -> AsyncIterator[Plugin]:
    plugins = bundled(StorageOptions(), tmp_path, cast(Live, None))
    yield plugins["memory"]
    for plugin in plugins.values():
        await plugin.close()


@pytest.mark.parametrize(
    ("text", "size"), [("", 1 << 30), ("1048576", 1 << 20), ("512MiB", 1 << 29), ("2g", 1 << 31), ("4096K", 1 << 22)]
)
def test_a_size_has_units(text: str, size: int) -> None:
    assert size_of({"size": text}) == size


@pytest.mark.parametrize("text", ["0", "-1", "1", "1e9", "8MiB,exec", "9999999999999999999t", "١MiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_1"):
        size_of({"size": text})


@needs_root
async def test_disks_outlive_a_detach_and_the_memory_is_given_back_with_the_last(
    plugin: Plugin, tmp_path: Path
) -> None:
    place = tmp_path / "sr-mount" / HOST_A / SR
    sr = await plugin.sr.attach(SR, SMALL, HOST_A)
    volume = await plugin.volume.create(sr, new(), MIB)
    await plugin.sr.detach(sr)
    assert mounted_at(place) is not None
    sr = await plugin.sr.attach(SR, SMALL, HOST_A)
    assert await plugin.sr.ls(sr) == [volume]
    await plugin.volume.destroy(sr, volume.key)
    await plugin.sr.detach(sr)
    assert mounted_at(place) is None


@needs_root
async def test_after_the_machine_has_ended_the_sr_is_there_and_empty(plugin: Plugin, tmp_path: Path) -> None:
    sr = await plugin.sr.attach(SR, SMALL, HOST_A)
    await plugin.volume.create(sr, new(), MIB)
    await run(["umount", str(tmp_path / "sr-mount" / HOST_A / SR)])  # as a reboot does
    again = await plugin.sr.attach(SR, SMALL, HOST_A)
    assert await plugin.sr.ls(again) == []
    assert (await plugin.sr.stat(again)).uuid == SR
    await plugin.sr.destroy(again)


@needs_root
async def test_it_takes_no_more_than_its_size(plugin: Plugin) -> None:
    sr = await plugin.sr.attach(SR, SMALL, HOST_A)
    assert (await plugin.sr.stat(sr)).total_space == 8 * MIB
    await plugin.sr.destroy(sr)
