"""How images are merged, in the rows of SRs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from services.api import merges
from services.api.merges import summary
from shared.contracts.db import MapPut
from shared.contracts.storage import MERGES, Merge
from shared.errors import ApiError
from tests.api.core.test_storage import sr_of
from tests.api.harness import Client, Pool


def event(event: Any, sr: str = "s", host: str = "a", **more: Any) -> Merge:
    return Merge(host=host, sr=sr, event=event, **more)


def test_a_merge_that_runs_says_more_than_one_that_has_failed() -> None:
    assert summary([event("idle"), event("end")]) == ""
    assert summary([event("failed", why="x"), event("idle", host="b")]) == "failed: x"
    assert summary([event("failed", why="x"), event("begin", host="b")]) == "running"


def _says(pool: Pool, sr: str, text: str | None) -> bool:
    return bool(pool.row("SR", sr)["sm_config"].get("coalesce") == text)


async def test_an_sr_s_row_says_that_its_images_are_merged_and_why_they_are_not(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "SETTLES", 0.01)
    sr = sr_of(pool)
    await client.call("SR.add_to_sm_config", sr, "other", "kept")
    host, uuid = pool.hosts[0], pool.row("SR", sr)["uuid"]
    for said, text in (
        (event("begin", uuid), "running"),
        (event("failed", uuid, why="SR_FULL"), "failed: SR_FULL"),
        (event("begin", uuid), "running"),
        (event("idle", uuid), None),
    ):
        await host.bus.publish(MERGES, said, host=host.uuid)
        await pool.until(partial(_says, pool, sr, text))
    assert pool.row("SR", sr)["sm_config"] == {"other": "kept"}


async def test_what_is_not_heard_to_be_over_does_not_stay_when_the_coordinator_is_killed(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "SETTLES", 0.01)
    sr = sr_of(pool)
    await pool.write(MapPut(cls="SR", ref=sr, field="sm_config", key="coalesce", value="running"))
    await pool.kill_api()
    await pool.start_api()
    await pool.until(partial(_says, pool, sr, None))


async def test_what_could_not_be_written_is_written_later(
    pool: Pool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "SETTLES", 0.01)
    sr, host, database = sr_of(pool), pool.hosts[0], pool.api.database
    transact, refused = database.transact, asyncio.Event()

    async def refuses_once(*arguments: Any) -> int:
        if not refused.is_set():
            refused.set()
            raise ApiError("INTERNAL_ERROR", "the database is away")
        return await transact(*arguments)

    monkeypatch.setattr(database, "transact", refuses_once)
    await host.bus.publish(MERGES, event("begin", pool.row("SR", sr)["uuid"]), host=host.uuid)
    await pool.until(partial(_says, pool, sr, "running"))
    assert refused.is_set()
