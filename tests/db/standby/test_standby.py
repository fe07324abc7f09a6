"""Standbys follow the primary, persist what they follow, and take over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.db.standby import lease, stand
from services.db.standby.rows import Rows
from shared.contracts import db as contract
from shared.errors import ApiError
from tests.db import rows
from tests.db.standby.cluster import Cluster, contents, until


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    await cluster.stop()


async def test_a_standby_has_the_primarys_rows_to_the_last_stamp(cluster: Cluster) -> None:
    await cluster.start(0, 1)
    ref = await cluster.network("first")
    await cluster.write(contract.Update(cls="network", ref=ref, fields={"name_label": "second"}), rows.task())
    await cluster.caught_up(1)
    primary, standby = await cluster.rows(0), await cluster.rows(1)
    assert (standby.generation, standby.term) == (primary.generation, primary.term)
    assert contents(standby) == contents(primary)
    assert list((await cluster.status()).standbys) == [cluster.uuids[1]]


async def test_a_standby_that_is_killed_goes_on_from_its_own_log(cluster: Cluster) -> None:
    await cluster.start(0, 1)
    await cluster.network("before")
    await cluster.caught_up(1)
    await cluster.kill(1)
    await cluster.network("meanwhile")
    await cluster.run(1)
    await cluster.caught_up(1)
    assert contents(await cluster.rows(1)) == contents(await cluster.rows(0))


async def test_a_primary_that_is_started_anew_is_followed_without_a_snapshot(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.start(0, 1)
    await cluster.network("before")
    await cluster.caught_up(1)
    caplog.clear()
    with caplog.at_level("INFO", logger="db.standby"):
        await cluster.kill(0)
        await cluster.run(0)
        await cluster.network("after")
        await cluster.caught_up(1)
    assert "took over all rows" not in caplog.text
    assert contents(await cluster.rows(1)) == contents(await cluster.rows(0))


async def test_only_as_many_as_the_option_says_persist_the_others_are_idle(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2, standbys=1)

    async def settled() -> bool:
        return [(await cluster.role(number)).role for number in (0, 1, 2)] == ["primary", "standby", "idle"]

    await until(settled)


async def test_a_planned_promotion_loses_nothing_and_writers_notice_nothing(cluster: Cluster) -> None:
    await cluster.start(0, 1)
    refs = [await cluster.network(f"n{number}") for number in range(3)]
    await cluster.caught_up(1)
    acknowledged: list[str] = []
    stopping = asyncio.Event()

    async def work(ref: str) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            change = contract.Update(cls="network", ref=ref, fields={"name_description": str(number)})
            await cluster.write(change)
        acknowledged.append(f"{ref} {number}")

    writers = [asyncio.create_task(work(ref)) for ref in refs]
    await asyncio.sleep(0.2)
    promoted = await cluster.promote(1, planned=True)
    await asyncio.sleep(0.2)
    stopping.set()
    await asyncio.gather(*writers)
    assert promoted.source == cluster.uuids[0]
    store = await cluster.rows(1)
    assert sorted(f"{ref} {store.get('network', ref, 'name_description')}" for ref in refs) == sorted(acknowledged)
    pool = next(iter(store.rows("pool").values()))
    assert store.get("host", pool["master"], "uuid") == cluster.uuids[1]
    assert (await cluster.role(1)).role == "primary"
    await cluster.caught_up(0)
    assert contents(await cluster.rows(0)) == contents(await cluster.rows(1))


async def test_a_standby_takes_over_from_a_primary_that_is_dead(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2)
    ref = await cluster.network("kept")
    await cluster.caught_up(1, 2)
    await cluster.kill(0)
    before = await cluster.role(1)
    promoted = await cluster.promote(1)
    assert promoted.term > before.term
    assert promoted.generation > before.generation, "a generation that the old primary may have used is not used again"
    await cluster.write(contract.Update(cls="network", ref=ref, fields={"name_label": "again"}))
    await cluster.caught_up(2)
    assert (await cluster.rows(2)).get("network", ref, "name_label") == "again"
    assert contents(await cluster.rows(2)) == contents(await cluster.rows(1))


async def test_whoever_is_promoted_fetches_what_another_standby_has_and_it_lacks(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2)
    await cluster.network("everybody")
    await cluster.caught_up(1, 2)
    cluster.cut(1)
    ref = await cluster.network("only the other one")
    await cluster.caught_up(2)
    await cluster.kill(0)
    await cluster.heal(1)
    promoted = await cluster.promote(1)
    assert promoted.source == cluster.uuids[2]
    assert (await cluster.rows(1)).get("network", ref, "name_label") == "only the other one"


async def test_an_idle_process_can_be_promoted_when_somebody_else_has_the_rows(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2, standbys=1)
    ref = await cluster.network("kept")
    await cluster.caught_up(1)

    async def knows_the_others() -> bool:
        return (cluster.folder / "host2" / "standing.json").read_text().count("-") > 8

    await until(knows_the_others)
    await cluster.kill(0)
    promoted = await cluster.promote(2)
    assert promoted.source == cluster.uuids[1]
    assert (await cluster.rows(2)).get("network", ref, "name_label") == "kept"


async def test_a_request_that_was_committed_but_not_answered_is_not_applied_again_by_the_next_primary(
    cluster: Cluster,
) -> None:
    await cluster.start(0, 1)
    await cluster.network("first")
    await cluster.caught_up(1)
    primary = cluster.bus_of(0)
    made = rows.network("once")
    send = primary.transport.reply
    primary.transport.reply = lambda *_: None  # type: ignore[method-assign]
    writing = asyncio.create_task(cluster.write(made))

    async def followed() -> bool:
        return made.ref in (await cluster.rows(1)).tables["network"].rows

    await until(followed)
    primary.transport.reply = send  # type: ignore[method-assign]
    await cluster.kill(0)
    await cluster.promote(1)
    committed = await writing
    assert (await cluster.rows(1)).find("network", made.ref).created == committed.generation  # type: ignore[union-attr]


async def test_a_primary_that_was_cut_off_is_fenced_and_tells_what_was_left_out(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2)
    kept = await cluster.network("kept")
    await cluster.caught_up(1, 2)
    lost = rows.network("lost")
    cut = cluster.bus_of(0)
    publish = cut.transport.event
    cut.transport.event = lambda *_: None  # type: ignore[method-assign]
    cut.transport.reply = lambda *_: None  # type: ignore[method-assign]
    client = await cluster.broker.connect("lost client")
    losing = asyncio.create_task(client.call(contract.TRANSACT, contract.Transact(changes=[lost]), timeout=30))

    async def committed() -> bool:
        return any(b"lost" in path.read_bytes() for path in (cluster.folder / "host0" / "redo").glob("redo-*"))

    await until(committed)
    cluster.cut(0)
    await client.abandon()
    await asyncio.gather(losing, return_exceptions=True)
    await cluster.promote(1)
    await cluster.write(contract.Update(cls="network", ref=kept, fields={"name_label": "new term"}))
    cut.transport.event = publish  # type: ignore[method-assign]
    del cut.transport.reply
    await cluster.heal(0)
    await cluster.caught_up(0, 2)
    assert contents(await cluster.rows(0)) == contents(await cluster.rows(1))
    assert contents(await cluster.rows(2)) == contents(await cluster.rows(1))
    (path,) = (cluster.folder / "host0").glob("unmerged-*.json")
    assert "lost" in path.read_text()
    assert [alert.name for alert in cluster.alerts] == ["DATABASE_WRITES_UNMERGED"]

    async def told() -> bool:
        return (await cluster.status()).unmerged == [f"{cluster.uuids[0]}:{path}"]

    await until(told)


async def test_a_fenced_primary_that_is_started_anew_stands_by(cluster: Cluster) -> None:
    await cluster.start(0, 1)
    await cluster.network("kept")
    await cluster.caught_up(1)
    await cluster.kill(0)
    await cluster.promote(1)
    await cluster.run(0)
    await cluster.caught_up(0)
    assert (await cluster.role(1)).role == "primary"
    await cluster.kill(1)
    await cluster.run(1)
    assert (await cluster.role(1)).role == "primary", "it stays what the promotion made it, whatever its option says"


async def test_of_two_that_are_promoted_at_once_at_most_one_takes_over(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2)
    await cluster.network("kept")
    await cluster.caught_up(1, 2)
    await cluster.kill(0)
    outcomes = await asyncio.gather(cluster.promote(1), cluster.promote(2), return_exceptions=True)
    if all(isinstance(outcome, ApiError) for outcome in outcomes):
        await cluster.promote(1)
    assert [(await cluster.role(number)).role for number in (1, 2)].count("primary") == 1
    await cluster.network("after")


async def test_a_promotion_that_fails_leaves_the_primary_at_work(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.start(0, 1)
    await cluster.network("kept")
    await cluster.caught_up(1)

    async def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Rows, "begin_term", fails)
        with pytest.raises(ApiError, match="No space left"):
            await cluster.promote(1)
    await cluster.network("the old primary goes on")
    assert [(await cluster.role(number)).role for number in (0, 1)] == ["primary", "standby"]


async def test_a_primary_that_hands_over_to_somebody_who_dies_takes_its_place_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand, "SUCCESSOR", 0.5)
    await cluster.start(0, 1)
    await cluster.network("kept")
    await cluster.caught_up(1)
    await cluster.bus.call(contract.RESIGN, contract.Resign(host=cluster.uuids[1]))
    await cluster.kill(1)
    await cluster.network("after")
    assert (await cluster.role(0)).role == "primary"


async def test_what_was_decided_on_rows_that_were_left_out_is_refused(cluster: Cluster) -> None:
    await cluster.start(0, 1)
    await cluster.network("kept")
    await cluster.caught_up(1)
    before = await cluster.role(0)
    ahead = contract.Position(term=before.term, generation=before.generation + 5)
    await cluster.kill(0)
    await cluster.promote(1)
    with pytest.raises(ApiError, match="DB_CONFLICT"):
        await cluster.write(rows.network("n"), seen=ahead)
    await cluster.write(rows.network("n"), seen=contract.Position(term=before.term, generation=before.generation))


async def test_a_primary_that_stood_still_answers_nothing_before_it_knows_that_it_still_is_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    stood_still = False
    clock = lease.boot_clock
    monkeypatch.setattr(lease, "boot_clock", lambda: clock() + (1000.0 if stood_still else 0.0))
    await cluster.start(0)
    await cluster.network("before")
    bus = cluster.bus_of(0)
    send = bus.transport.request
    bus.transport.request = lambda *_: None  # type: ignore[method-assign]
    stood_still = True
    writing = asyncio.create_task(cluster.network("held"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(writing), 0.5)
    bus.transport.request = send  # type: ignore[method-assign]
    await writing


async def test_a_promotion_that_was_interrupted_is_finished_when_the_process_is_started_anew(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.start(0, 1)
    await cluster.network("kept")
    await cluster.caught_up(1)
    promised = asyncio.Event()

    async def dies(*_: object) -> None:
        promised.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(Rows, "begin_term", dies)
        asking = asyncio.create_task(cluster.promote(1))
        await asyncio.wait_for(promised.wait(), 10)
        await cluster.kill_at_once(1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await cluster.run(1)

    async def promoted() -> bool:
        return (await cluster.role(1)).role == "primary"

    await until(promoted)
    await cluster.caught_up(0)
    await cluster.network("after")


async def test_a_restored_database_takes_the_place_of_the_standbys_rows_too(cluster: Cluster) -> None:
    await cluster.start(0, 1)
    await cluster.network("gone")
    await cluster.caught_up(1)
    new = await cluster.bus.call(contract.SNAPSHOT, contract.SnapshotRequest())
    kept = [row for row in new.rows if row.cls in ("pool", "host")]
    await cluster.bus.call(contract.RESTORE_PART, contract.RestorePart(restore="r", number=0, rows=kept))
    await cluster.bus.call(contract.RESTORE, contract.Restore(restore="r", parts=1, generation=5000))
    await cluster.network("new")
    await cluster.caught_up(1)
    assert contents(await cluster.rows(1)) == contents(await cluster.rows(0))
    seen = contract.Position(term=1, generation=1)
    with pytest.raises(ApiError, match="DB_CONFLICT"):
        await cluster.write(rows.network("decided before"), seen=seen)


# ---- semi-synchronous commits


async def test_a_commit_waits_for_a_standby_that_must_have_it(cluster: Cluster) -> None:
    await cluster.start(0, 1, synchronous_standbys=1, synchronous_timeout=20.0)
    ref = await cluster.network("first")
    await cluster.kill(0)
    await cluster.promote(1)
    assert (await cluster.rows(1)).find("network", ref) is not None, "it was acknowledged, so the standby has it"


async def test_without_standbys_commits_go_on_after_a_while_and_people_are_told(cluster: Cluster) -> None:
    await cluster.start(0, synchronous_standbys=1, synchronous_timeout=0.2)
    await cluster.network("waits")
    assert "0 of 1 standbys" in (await cluster.status()).degraded
    await cluster.run(1)
    await cluster.caught_up(1)
    await cluster.network("wakes")

    async def waits_again() -> bool:
        return not (await cluster.status()).degraded

    await until(waits_again)
    assert [alert.name for alert in cluster.alerts] == ["DATABASE_STANDBYS_MISSING", "DATABASE_STANDBYS_BACK"]


async def test_by_policy_commits_are_refused_without_standbys_but_not_volatile_ones(cluster: Cluster) -> None:
    await cluster.start(0, 1, synchronous_standbys=1, synchronous_timeout=1.0, when_standbys_missing="refuse")
    await cluster.caught_up(1)
    await cluster.network("both")
    await cluster.kill(1)
    with pytest.raises(ApiError, match="the result is unknown"):
        await cluster.network("waits")
    with pytest.raises(ApiError, match="not saved"):
        await cluster.network("refused")
    await cluster.write(rows.task())
