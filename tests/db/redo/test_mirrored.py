"""The redo log on a disk of an SR as well: switched on and off, lost, full, and gone on from by another host."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.db import service as db_service
from services.db.redo.block import reading
from services.db.redo.mirrored import MirroredRedoLog
from shared.bus.contract import Empty
from shared.bus.interface import HostOffline
from shared.contracts import storage
from shared.contracts.db import USE_REDO_LOG, Create, DbStatus, Delete, UseRedoLog
from shared.errors import ApiError
from shared.redo_blocks import layout
from shared.redo_blocks.layout import UPSTREAM
from tests.db import rows
from tests.db.redo.block.test_process import ProcessDisk
from tests.db.standby.cluster import QUICK, Cluster, until


class Hosts(Cluster):
    """Their storage services show all of them the same file, unless it is `missing`; `kind`: as they say it is."""

    def __init__(self, folder: Path, hosts: int) -> None:
        super().__init__(folder, hosts)
        self.path = folder / "disk"
        with self.path.open("wb") as file:
            file.truncate(UPSTREAM.size)
        self.kind, self.format = "file", "raw"
        self.missing = False
        self.disks: dict[int, ProcessDisk] = {}
        self.open: set[tuple[int, str]] = set()

    async def begin(self) -> None:
        await self.start(*range(len(self.uuids)))
        for number, uuid in enumerate(self.uuids):
            bus = await self.broker.connect(f"storage{number}", QUICK)
            await bus.serve(storage.OPEN, self._opener(number), host=uuid)
            await bus.serve(storage.CLOSE, self._closer(number), host=uuid)
            await bus.serve(storage.DATAPATHS, self._lister(number), host=uuid)
            await bus.start_consuming("storage", host=uuid)

    def _opener(self, number: int) -> Any:
        async def opened(request: storage.Open) -> storage.Opened:
            if self.missing:
                raise ApiError("SR_NOT_ATTACHED", "sr")
            [disk] = request.disks
            self.open.add((number, disk.dp))
            path = str(self.path)
            return storage.Opened(
                backends=[storage.Backend(dp=disk.dp, kind=self.kind, path=path, format=self.format, writable=True)]
            )

        return opened

    def _closer(self, number: int) -> Any:
        async def close(request: storage.Close) -> Empty:
            self.open -= {(number, dp) for dp in request.dps}
            return Empty()

        return close

    def _lister(self, number: int) -> Any:
        async def listed(_: Empty) -> storage.Datapaths:
            held = [dp for host, dp in self.open if host == number]
            return storage.Datapaths(
                datapaths=[
                    storage.Datapath(dp=dp, sr="sr", location="there", state="activated", writable=True) for dp in held
                ]
            )

        return listed

    def new_disk(self, number: int) -> ProcessDisk:
        disk = self.disks[number] = ProcessDisk()
        return disk

    async def kill(self, number: int) -> None:
        await super().kill(number)
        self.disks[number].release()

    async def vdi(self) -> str:
        status = await self.rows(0)
        made = Create(
            cls="VDI",
            ref=rows.ref(),
            fields={"uuid": "vdi-uuid", "location": "there", "SR": next(iter(status.rows("SR"))), "type": "redo_log"},
        )
        await self.write(made)
        return made.ref

    async def use(self, vdi: str) -> None:
        await self.bus.call(USE_REDO_LOG, UseRedoLog(vdi=vdi), timeout=20.0)

    async def status(self) -> DbStatus:
        """Of a process that has begun."""

        async def there() -> bool:
            try:
                await super(Hosts, self).status()
            except HostOffline:
                return False
            return True

        await until(there)
        return await super().status()

    async def attached(self, number: int) -> None:
        async def there() -> bool:
            return (number, "static/redo-log/vdi-uuid") in self.open

        await until(there)

    async def disk_is(self, state: str) -> DbStatus:
        async def there() -> bool:
            return (await self.status()).redo_log_disk_state == state

        await until(there)
        return await self.status()

    def path_is_closed(self) -> bool:
        return not any(_is(descriptor, self.path) for disk in self.disks.values() for descriptor in disk.descriptors)

    def forget(self, number: int) -> None:
        """That host's local log is lost."""
        shutil.rmtree(self.folder / f"host{number}" / "redo")
        for path in (self.folder / f"host{number}").glob("state.db*"):
            path.unlink()

    def on_disk(self) -> set[str]:
        """Names of the networks that a reader of the layout finds."""
        data = self.path.read_bytes()
        half = layout.valid_half(data[: layout.HALVES])
        if not half:
            return set()
        found = reading.recovered(reading.read(data[UPSTREAM.start(half) : UPSTREAM.end(half)]))
        named = {row.ref: row.fields["name_label"] for row in found.rows if row.cls == "network"}
        for record in found.records:
            for change in record.changes:
                if change.cls == "network" and "name_label" in getattr(change, "fields", {}):
                    named[change.ref] = change.fields["name_label"]  # type: ignore[union-attr]
        return set(named.values())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses, which are no test's subject."""
    monkeypatch.setattr("services.db.redo_disk.AGAIN", 0.1)
    monkeypatch.setattr("services.db.health.FIRST_PAUSE", 0.2)


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    made = Hosts(tmp_path, 1)
    await made.begin()
    yield made
    await made.stop()


@pytest.fixture
async def two_hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    made = Hosts(tmp_path, 2)
    await made.begin()
    yield made
    await made.stop()


def _is(descriptor: int, path: Path) -> bool:
    return os.path.realpath(f"/proc/self/fd/{descriptor}") == str(path)


def names(store: Any) -> set[str]:
    return {str(row["name_label"]) for row in store.rows("network").values()}


async def test_what_was_acknowledged_is_on_the_disk_and_a_host_that_has_lost_its_own_log_starts_from_there(
    hosts: Hosts,
) -> None:
    await hosts.network("before")
    await hosts.use(await hosts.vdi())
    assert hosts.on_disk() >= {"before"}
    writing = [asyncio.create_task(hosts.network(f"n{number}")) for number in range(20)]
    await asyncio.gather(*writing)
    expected = {"before", *(f"n{number}" for number in range(20))}
    assert hosts.on_disk() >= expected
    pool = next(iter((await hosts.rows(0)).rows("pool").values()))
    assert pool["redo_log_enabled"]
    await hosts.kill(0)
    await hosts.run(0)
    status = await hosts.disk_is("current")
    assert status.read_from == ""
    assert names(await hosts.rows(0)) >= expected
    await hosts.kill(0)
    hosts.forget(0)
    await hosts.run(0)
    assert (await hosts.status()).read_from == str(hosts.path)
    assert names(await hosts.rows(0)) >= expected
    await hosts.disk_is("current")
    await hosts.network("afterwards")
    assert "afterwards" in hosts.on_disk()


async def test_whenever_a_process_is_killed_while_many_write_the_disk_alone_has_what_was_acknowledged(
    hosts: Hosts,
) -> None:
    await hosts.use(await hosts.vdi())
    acknowledged: set[str] = set()

    async def write(name: str) -> None:
        for number in range(1000):
            await hosts.network(f"{name}-{number}")
            acknowledged.add(f"{name}-{number}")

    for turn, enough in enumerate((7, 40, 90)):
        before = len(acknowledged)
        writers = [asyncio.create_task(write(f"{turn}-{writer}")) for writer in range(5)]

        async def written(least: int = before + enough) -> bool:
            return len(acknowledged) >= least

        await until(written)
        await hosts.kill(0)
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        assert hosts.on_disk() >= acknowledged
        hosts.forget(0)
        await hosts.run(0)
        await hosts.disk_is("current")
        assert names(await hosts.rows(0)) >= acknowledged


async def test_without_it_the_local_log_goes_on_alone_and_the_disk_is_closed(hosts: Hosts) -> None:
    vdi = await hosts.vdi()
    await hosts.use(vdi)
    assert hosts.open == {(0, "static/redo-log/vdi-uuid")}
    await hosts.use("")
    assert hosts.open == set()
    await hosts.network("later")
    assert "later" not in hosts.on_disk()
    status = await hosts.status()
    assert (status.redo_log_disk, status.redo_log_disk_state) == ("", "")
    await hosts.kill(0)
    await hosts.run(0)
    assert "later" in names(await hosts.rows(0))
    assert hosts.open == set()
    await hosts.use(vdi)  # what it held before is nothing to us
    assert "later" in hosts.on_disk()


async def test_a_disk_that_cannot_be_used_is_refused_and_nothing_has_changed(hosts: Hosts) -> None:
    vdi = await hosts.vdi()

    async def refusal() -> ApiError:
        with pytest.raises(ApiError) as caught:
            await hosts.use(vdi)
        assert caught.value.code == "CANNOT_ENABLE_REDO_LOG"
        return caught.value

    hosts.missing = True
    assert "SR_NOT_ATTACHED" in str(await refusal())
    hosts.missing, hosts.format = False, "qcow2"
    assert "raw" in str(await refusal())
    hosts.format = "raw"
    hosts.path.write_bytes(b"somebody's")
    assert "bytes" in str(await refusal())
    os.truncate(hosts.path, UPSTREAM.size)
    assert "no redo log" in str(await refusal())
    hosts.path.unlink()
    assert "No such file" in str(await refusal())
    assert not hosts.path.exists(), "the SR is away, and what would be made is on the host's own disk"
    assert hosts.open == set()
    pool = next(iter((await hosts.rows(0)).rows("pool").values()))
    assert not pool["redo_log_enabled"]
    await hosts.network("all the same")


async def test_a_call_that_is_given_up_half_way_leaves_nothing_open_and_the_next_one_succeeds(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    vdi = await hosts.vdi()
    reached, go_on = asyncio.Event(), threading.Event()
    loop, real = asyncio.get_running_loop(), MirroredRedoLog.look

    def held_up(self: MirroredRedoLog) -> Any:
        loop.call_soon_threadsafe(reached.set)
        assert go_on.wait(20)
        return real(self)

    with monkeypatch.context() as patched:
        patched.setattr(MirroredRedoLog, "look", held_up)
        call = asyncio.create_task(hosts.use(vdi))
        await reached.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        go_on.set()

    async def left() -> bool:
        status = await hosts.status()
        return hosts.open == set() and status.redo_log_disk == "" and hosts.path_is_closed()

    await until(left)
    await hosts.use(vdi)
    await hosts.network("afterwards")
    assert "afterwards" in hosts.on_disk()


async def test_a_disk_that_fails_is_told_of_and_left_behind_and_gets_all_rows_when_it_is_back(hosts: Hosts) -> None:
    await hosts.use(await hosts.vdi())
    device, hosts.path = hosts.path, hosts.path.with_name("gone")
    descriptor = next(item for item in hosts.disks[0].descriptors if _is(item, device))
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, descriptor)
    os.close(full)
    await hosts.network("without it")
    assert (await hosts.status()).redo_log_disk_state == "broken"
    assert "without it" in names(await hosts.rows(0))
    hosts.path = device
    await hosts.disk_is("current")
    assert "without it" in hosts.on_disk()

    async def told() -> bool:
        return [alert.name for alert in hosts.alerts] == ["METADATA_LUN_BROKEN", "METADATA_LUN_HEALTHY"]

    await until(told)
    assert "vdi-uuid" in hosts.alerts[0].body


async def test_a_start_without_the_disk_goes_on_with_the_local_log(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hosts.use(await hosts.vdi())
    await hosts.network("kept")
    await hosts.kill(0)
    hosts.missing = True
    monkeypatch.setattr("services.db.redo_disk.STARTING", 0.1)
    await hosts.run(0)
    assert "kept" in names(await hosts.rows(0))
    await hosts.network("more")
    hosts.missing = False
    await hosts.disk_is("current")
    assert hosts.on_disk() >= {"kept", "more"}


async def test_a_half_that_is_full_is_written_anew_and_no_commit_is_missing(hosts: Hosts) -> None:
    await hosts.use(await hosts.vdi())
    wide = "x" * 4_000_000
    for number in range(18):
        made = rows.network(f"wide {number}", name_description=wide)
        await hosts.write(made)
        await hosts.write(Delete(cls="network", ref=made.ref))
    await hosts.network("last")
    await hosts.disk_is("current")
    assert "last" in hosts.on_disk()
    assert hosts.alerts == []


async def test_another_host_that_takes_over_goes_on_with_what_it_had_not_heard_of(
    two_hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is promoted ends when it finds more on the disk, and a start has it."""
    hosts = two_hosts
    await hosts.use(await hosts.vdi())
    await hosts.network("heard of")
    await hosts.caught_up(1)
    await hosts.attached(1)
    await hosts.kill(1)
    await hosts.network("not heard of")
    await hosts.kill(0)
    standing = hosts.folder / "host1" / "standing.json"
    ends: list[tuple[str, bytes]] = []
    monkeypatch.setattr(db_service, "_start_anew", lambda why: ends.append((why, standing.read_bytes())))
    await hosts.run(1)
    with pytest.raises(ApiError):
        await hosts.promote(1)
    [(why, kept)] = ends
    assert "starting anew" in why
    await hosts.kill(1)
    standing.write_bytes(kept)  # as it is when the process ends there
    await hosts.run(1)
    assert (await hosts.status()).read_from == str(hosts.path)
    assert names(await hosts.rows(1)) >= {"heard of", "not heard of"}


async def test_a_host_that_hands_over_lets_the_disk_go_and_the_next_one_writes_there(two_hosts: Hosts) -> None:
    hosts = two_hosts
    await hosts.use(await hosts.vdi())
    await hosts.caught_up(1)
    await hosts.attached(1)
    await hosts.promote(1, planned=True)
    await hosts.network("of the next")
    await hosts.disk_is("current")
    assert "of the next" in hosts.on_disk()
    assert (await hosts.status()).host == hosts.uuids[1]


async def test_one_that_was_replaced_while_it_was_away_does_not_take_the_rows_of_its_successor_from_the_disk(
    two_hosts: Hosts,
) -> None:
    """It would be ahead of them, since a start from the disk leaves generations out."""
    hosts = two_hosts
    await hosts.use(await hosts.vdi())
    await hosts.caught_up(1)
    await hosts.attached(1)
    await hosts.kill(0)
    await hosts.promote(1)
    await hosts.network("of the successor")
    await hosts.disk_is("current")
    await hosts.run(0)
    await hosts.caught_up(0)
    assert not hosts.stopped(0)
    assert "of the successor" in names(await hosts.rows(0))


async def test_a_disk_that_a_call_has_left_open_is_closed(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.db.redo_disk.SWEEP", 0.0)
    await hosts.use(await hosts.vdi())
    hosts.open |= {(0, "static/redo-log/of-a-call"), (0, "vbd/vm/0")}

    async def closed() -> bool:
        return hosts.open == {(0, "static/redo-log/vdi-uuid"), (0, "vbd/vm/0")}

    await until(closed)


async def test_what_another_pool_has_written_there_is_nobodys_rows_here(hosts: Hosts, tmp_path: Path) -> None:
    await hosts.use(await hosts.vdi())
    await hosts.network("ours")
    await hosts.kill(0)
    (tmp_path / "others").mkdir()
    others = Hosts(tmp_path / "others", 1)
    await others.begin()
    await others.use(await others.vdi())
    for number in range(30):
        await others.network(f"theirs {number}")
    await others.stop()
    shutil.copyfile(others.path, hosts.path)
    await hosts.run(0)
    assert names(await hosts.rows(0)) >= {"ours"}
    assert "theirs 1" not in names(await hosts.rows(0))
    await hosts.disk_is("broken")
    await hosts.network("alone")
    assert "theirs 1" in hosts.on_disk(), "it is left as it is"
