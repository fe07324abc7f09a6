"""The whole process: a database of the original becomes the pool's, and leaves as a file that the original takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.bus import amqp
from shared.bus.interface import Bus
from shared.contracts.db import SNAPSHOT, TRANSACT, SnapshotRequest, Transact
from tests.db import rows
from tests.db.outputs.original import accept
from tests.db.outputs.test_start import foreign
from tests.db.test_kill import DatabaseProcess

pytestmark = pytest.mark.broker


@pytest.fixture
async def process(tmp_path: Path, broker_url: str) -> AsyncIterator[DatabaseProcess]:
    (tmp_path / "db").mkdir()
    database = DatabaseProcess(tmp_path, broker_url)
    yield database
    await database.stop()


@pytest.fixture
async def bus(broker_url: str) -> AsyncIterator[Bus]:
    connected = await amqp.connect(broker_url, name="test")
    yield connected
    await connected.close()


async def labels(bus: Bus) -> set[str]:
    page = await bus.call(SNAPSHOT, SnapshotRequest(), timeout=30)
    return {row.fields["name_label"] for row in page.rows if row.cls == "network"}


async def test_a_database_of_the_original_is_served_and_written_again(
    process: DatabaseProcess, bus: Bus, tmp_path: Path
) -> None:
    state = tmp_path / "db" / "state.db"
    state.write_bytes(foreign("theirs"))
    await process.start()
    assert await labels(bus) == {"theirs"}
    await bus.call(TRANSACT, Transact(changes=[rows.network("ours")]), timeout=30)
    await process.stop()
    found = accept(state.read_bytes())
    assert {row["name__label"] for row in found.tables["network"].values()} == {"theirs", "ours"}
    sidecar = (tmp_path / "db" / "state.db.generation").read_text()
    assert sidecar == str(found.manifest["generation_count"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("db.conf", b"[state.db]\nmode:now and then\n", r"db\.conf, line 2: mode cannot be 'now and then'"),
        ("state.db", b"<database><manifest/></database>", r"state\.db is no database that can be read: the manifest"),
    ],
)
async def test_what_cannot_be_understood_stops_the_start_and_is_left_as_it_is(
    process: DatabaseProcess, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    file = tmp_path / "db" / name
    file.write_bytes(content)
    await process.start()
    assert await asyncio.wait_for(process.ended(), 20) == 1
    assert re.search(said, (tmp_path / "db.log").read_text())
    assert file.read_bytes() == content
