"""How images are merged, in the rows of SRs."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from services.api import merges
from services.api.merges import summary
from shared.contracts.storage import MERGES, Merge
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
