"""Uploads that are cancelled while the storage service still opens the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.api.handlers import disk_streams
from tests.api.handlers.conftest import Site
from tests.api.handlers.real_disks import RealDisks, real_disks
from tests.api.harness import PATIENCE, Pool
from tests.storage.support import MIB


@pytest.fixture
async def disks(pool: Pool, tmp_path: Path) -> AsyncIterator[RealDisks]:
    async with real_disks(pool, tmp_path / "disks") as running:
        yield running


async def opening(site: Site, disks: RealDisks) -> str:
    """The task of an upload that makes a disk, which is open, but nobody knows it yet."""
    disks.told.clear()
    sr = next(iter(site.pool.store.rows("SR")))
    task = await site.task()
    client = await site.connect()
    await client.send(
        site.request("PUT", f"/import_raw_vdi?sr_id={sr}&task_id={task}", None, f"Content-Length: {MIB}\r\n")
    )
    await asyncio.wait_for(disks.opened.wait(), PATIENCE)
    return task


async def test_the_new_disk_is_closed_before_it_is_destroyed(site: Site, disks: RealDisks) -> None:
    task = await opening(site, disks)
    ((new, row),) = site.pool.store.rows("VDI").items()
    await site.client.call("task.cancel", task)
    record = {"name_label": "another", "SR": row["SR"], "virtual_size": MIB, "type": "user", "other_config": {}}
    another = await site.client.call("VDI.create", record | {"sharable": False, "read_only": False})
    await site.client.call("VDI.destroy", another)  # which takes as long as destroying the new one would have
    assert new in site.pool.store.rows("VDI")
    disks.told.set()
    assert (await site.ended(task))["status"] == "cancelled"
    await site.pool.until(lambda: not site.pool.store.rows("VDI"))
    assert disks.storage.nothing_is_open()


async def test_an_opening_that_takes_too_long_is_cancelled_too(
    site: Site, disks: RealDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_streams, "OPENING", 0.1)
    task = await opening(site, disks)
    await site.client.call("task.cancel", task)
    assert (await site.ended(task))["status"] == "cancelled"
    await site.pool.until(lambda: not site.pool.store.rows("VDI"))
    disks.told.set()
