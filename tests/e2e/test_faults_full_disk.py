"""Disks that are full: the database's, and an SR's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import load
from tests.support.jsonrpc import Client, Failure
from tests.support.pool import PoolUnderTest
from tests.support.small_disk import fill, make_room, mounted
from tests.support.soundness import assert_sound

pytestmark = [
    pytest.mark.pool,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
    pytest.mark.timeout(240),
]


async def refused(client: Client, method: str, *params: Any) -> list[str]:
    with pytest.raises(Failure) as caught:
        await client.call(method, *params)
    return caught.value.details


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- the database


async def write_until_refused(client: Client, vm: str) -> tuple[str, list[str]]:
    """What was saved last, and the refusal. The last page of the log's file may take some more."""
    saved = str(await client.call("VM.get_name_description", vm))
    for number in range(10_000):
        try:
            await client.call("VM.set_name_description", vm, f"number {number}")
        except Failure as failure:
            return saved, failure.details
        saved = f"number {number}"
    raise AssertionError("the disk is not full")


@pytest.fixture
def cramped_pool(new_pool: PoolUnderTest) -> Iterator[PoolUnderTest]:
    """Its database has 4 MiB."""
    with mounted(new_pool.directory / "host1" / "db", 4):
        new_pool.up()
        yield new_pool
        new_pool.down()


async def test_a_full_disk_under_the_redo_log(cramped_pool: PoolUnderTest) -> None:
    disk = cramped_pool.directory / "host1" / "db"
    async with load.clean(cramped_pool) as client:
        sr = await load.default_sr(client)
        halted, running = [await load.machine(client, name, sr) for name in ("halted", "running")]
        await client.call("VM.start", running, False, False)
        vdis = await client.call("VDI.get_all")

        fill(disk)
        saved, (code, text) = await write_until_refused(client, halted)
        assert code == "INTERNAL_ERROR"
        assert "not saved, nothing changed" in text
        assert "No space left on device" in text
        assert await client.call("VM.get_name_description", halted) == saved, "reads go on, and show what was saved"
        for method, *params in (
            ("VM.start", halted, False, False),
            ("VM.hard_shutdown", running),
            ("VM.clone", halted, "copy"),
            ("VM.destroy", halted),
            ("network.create", {"name_label": "n", "name_description": "", "MTU": 1500, "other_config": {}}),
        ):
            assert (await refused(client, method, *params))[0] == "INTERNAL_ERROR", method
        assert await client.call("VM.get_power_state", halted) == "Halted"
        assert await client.call("VM.get_power_state", running) == "Running"

        make_room(disk)
        await client.call("VM.set_name_description", halted, "saved again")
        await assert_sound(cramped_pool, client)
        assert await client.call("VDI.get_all") == vdis
        await client.call("VM.start", halted, False, False)

        pid = cramped_pool.kill("db")  # what the log holds is whole
        cramped_pool.wait_restarted("db", other_than=pid)
        await client.call("VM.hard_shutdown", running)
        assert await client.call("VM.get_name_description", halted) == "saved again"
        assert await client.call("VM.get_power_state", halted) == "Running"
        assert [path.name for path in (disk / "redo").glob("*.new")] == []


# ---- an SR


@pytest.fixture
async def client(simulator_pool: PoolUnderTest) -> AsyncIterator[Client]:
    async with load.clean(simulator_pool) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "sr", 4) as found:
        yield found


async def create_sr(client: Client, host: str, config: dict[str, str], kind: str = "file") -> str:
    return str(await client.call("SR.create", host, config, 0, "small", "", kind, "user", False, {}))


async def remove_sr(client: Client, sr: str) -> None:
    for pbd in await client.call("SR.get_PBDs", sr):
        await client.call("PBD.unplug", pbd)
    await client.call("SR.destroy", sr)


async def test_a_full_sr_says_so_and_keeps_nothing_half_done(
    simulator_pool: PoolUnderTest, client: Client, folder: Path
) -> None:
    host = (await client.call("host.get_by_name_label", "host2"))[0]
    sr = await create_sr(client, host, {"location": str(folder)})
    vm = await load.machine(client, "in a small SR", sr)
    vdi = (await client.call("SR.get_VDIs", sr))[0]
    fill(folder)
    before = contents(folder)
    disk = {"name_label": "one more", "SR": sr, "virtual_size": 1 << 20, "type": "user", "sharable": False}
    for method, *params in (
        ("VDI.create", {**disk, "read_only": False, "other_config": {}}),
        ("VDI.clone", vdi, {}),
        ("VDI.snapshot", vdi, {}),
        ("VM.clone", vm, "copy"),
    ):
        code = (await refused(client, method, *params))[0]
        assert code in ("SR_FULL", "SR_BACKEND_FAILURE_44"), f"{method}: {code}"
    assert contents(folder) == before
    assert await client.call("SR.get_VDIs", sr) == [vdi]

    make_room(folder)
    copy = await client.call("VM.clone", vm, "copy")
    for one in (vm, copy):
        await client.call("VM.destroy", one)
    for one in await client.call("SR.get_VDIs", sr):
        await client.call("VDI.destroy", one)
    await assert_sound(simulator_pool, client)
    await remove_sr(client, sr)


@pytest.mark.parametrize(
    ("config", "kind", "code"),
    [
        ({}, "file", "SR_BACKEND_FAILURE_94"),
        ({"location": ""}, "file", "SR_BACKEND_FAILURE_94"),
        ({"location": "a/relative/path"}, "file", "SR_BACKEND_FAILURE_1"),
        ({"location": "/nowhere/at/all"}, "file", "SR_BACKEND_FAILURE_61"),
        ({"location": "/etc/passwd"}, "file", "SR_BACKEND_FAILURE_61"),
        ({"location": "/proc/1/x"}, "file", "SR_BACKEND_FAILURE_61"),
        ({"location": "/tmp/" + "x" * 300}, "file", "SR_BACKEND_FAILURE_61"),
        ({"location": "/tmp/a\x00b"}, "file", "SR_BACKEND_FAILURE_1"),
        ({"location": "{the default SR's}"}, "file", "SR_BACKEND_FAILURE_42"),
        ({"location": "/tmp"}, "nonsense", "SR_UNKNOWN_DRIVER"),
    ],
)
async def test_an_sr_where_none_can_be_is_refused(
    simulator_pool: PoolUnderTest, client: Client, config: dict[str, str], kind: str, code: str
) -> None:
    assert simulator_pool.plan.sr is not None
    default = simulator_pool.plan.sr.location
    given = {key: value.replace("{the default SR's}", default) for key, value in config.items()}
    host = (await client.call("host.get_all"))[0]
    before = await client.call("SR.get_all")
    assert (await refused(client, "SR.create", host, given, 0, "none", "", kind, "user", False, {}))[0] == code
    assert await client.call("SR.get_all") == before
