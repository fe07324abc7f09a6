"""The file that says what a host is in its pool, and what services make of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from shared import host_role
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config
from shared.host_role import BROKEN, COORDINATOR, RESTART, HostRole, member_of
from shared.service import Service


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_role, "LOOK_EVERY", 0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pool.conf"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    config = Config(service="ha", state_dir=str(tmp_path), bus=BusConfig(url="memory:"))
    service = Service(config, await MemoryBroker().connect("ha"))
    yield service
    await service.close()


def overwrite(path: Path, text: str) -> None:
    """Not as services do it."""
    path.write_text(text)


@pytest.mark.parametrize(
    ("role", "text"),
    [
        (COORDINATOR, "master"),
        (member_of("192.0.2.7"), "slave:192.0.2.7"),
        (member_of("2001:db8::7"), "slave:2001:db8::7"),
        (BROKEN, "broken"),
    ],
)
def test_a_role_is_read_as_it_was_written(path: Path, role: HostRole, text: str) -> None:
    host_role.write(path, role)
    assert path.read_text().strip() == text
    assert host_role.read(path) == role
    assert role.is_coordinator is (text == "master")


@pytest.mark.parametrize("content", [b"", b"master:10.0.0.1", b"broken:", b"slave", b"Master", b"\xff\xfe", None])
def test_a_file_that_says_nothing_is_that_of_a_broken_host(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    assert host_role.read(path) == BROKEN


def test_a_role_that_cannot_be_written_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host_role.write(path, COORDINATOR)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        host_role.write(path, BROKEN)
    assert host_role.read(path) == COORDINATOR
    assert [entry.name for entry in path.parent.iterdir()] == ["pool.conf"]


async def test_whoever_follows_the_file_hears_each_new_role_once(path: Path) -> None:
    host_role.write(path, COORDINATOR)
    async with asyncio.timeout(30), aclosing(host_role.changes(path, COORDINATOR)) as changes:
        first = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.02)  # it looks, and there is nothing new
        host_role.write(path, member_of("10.0.0.2"))
        assert await first == member_of("10.0.0.2")
        host_role.write(path, member_of("10.0.0.2"))  # the same again is no news
        second = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.02)
        overwrite(path, "nonsense")
        await asyncio.sleep(0.02)
        host_role.write(path, BROKEN)
        assert await second == BROKEN


async def test_a_service_whose_host_becomes_coordinator_ends_to_start_anew(service: Service, path: Path) -> None:
    host_role.write(path, member_of("10.0.0.1"))
    assert host_role.follow(service, path) == member_of("10.0.0.1")
    host_role.write(path, COORDINATOR)
    async with asyncio.timeout(30):
        await service.stopping.wait()
    assert service.status == RESTART


async def test_a_service_of_a_member_goes_on_when_the_pool_has_another_coordinator(
    service: Service, path: Path
) -> None:
    host_role.write(path, member_of("10.0.0.1"))
    host_role.follow(service, path)
    for role in (member_of("10.0.0.2"), BROKEN, member_of("10.0.0.3")):
        host_role.write(path, role)
        await asyncio.sleep(0.02)
    assert not service.stopping.is_set()
