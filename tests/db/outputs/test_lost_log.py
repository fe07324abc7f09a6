"""A coordinator whose redo log is lost: its file is behind, and a standby may have all of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.db.standby.cluster import Cluster, until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path, hosts=2)
    yield cluster
    await cluster.stop()


async def lose_log(cluster: Cluster) -> None:
    """The primary dies; its file is from before the last commits."""
    await cluster.kill(0)
    await asyncio.to_thread(shutil.rmtree, cluster.folder / "host0" / "redo")


async def flushed(cluster: Cluster, *others: int) -> None:
    """All that is committed so far is in the primary's file, and on the standbys."""
    await cluster.caught_up(*others)
    for number in (0, *others):
        await cluster.end(number)
    for number in (0, *others):
        await cluster.run(number)


async def labels(cluster: Cluster) -> set[str]:
    store = await cluster.rows(0)
    return {str(row["name_label"]) for row in store.rows("network").values()}


async def is_primary(cluster: Cluster) -> bool:
    return (await cluster.role(0)).role == "primary"


async def test_it_has_the_rows_of_a_standby_that_has_more(cluster: Cluster) -> None:
    await cluster.start(0, 1)
    await cluster.network("flushed")
    await flushed(cluster, 1)
    await cluster.network("later")
    await cluster.caught_up(1)
    before = await cluster.status()
    await lose_log(cluster)
    starting = asyncio.create_task(cluster.run(0))
    await until(lambda: is_primary(cluster))
    await starting
    assert {"flushed", "later"} <= await labels(cluster)
    status = await cluster.status()
    assert status.term > before.term
    assert status.generation > before.generation
    await cluster.network("after")
    await cluster.caught_up(1)


async def test_without_others_it_goes_on_with_its_file_above_all_that_it_was(cluster: Cluster) -> None:
    await cluster.start(0)
    await cluster.network("flushed")
    await flushed(cluster)
    await cluster.network("later")
    before = await cluster.status()
    await lose_log(cluster)
    await cluster.run(0)
    found = await labels(cluster)
    assert "flushed" in found
    assert "later" not in found
    status = await cluster.status()
    assert status.term >= before.term
    assert status.generation > before.generation
    row = next(iter((await cluster.rows(0)).tables["pool"].rows.values()))
    assert before.generation < row.modified <= status.generation, "older event tokens get everything"
