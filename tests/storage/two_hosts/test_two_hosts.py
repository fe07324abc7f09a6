"""Two hosts in network namespaces, with one folder that both see: nobody's disk is written to by another one too.

`python -m tests.storage.two_hosts` does the same for as long as one likes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.storage.two_hosts.hosts import TwoHosts, two_hosts
from tests.storage.two_hosts.races import Races
from tests.storage.two_hosts.witness import Witness

pytestmark = [pytest.mark.root, pytest.mark.broker, pytest.mark.timeout(120)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Paths of sockets must be short; pytest's own folders may not be."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    made = Path(tempfile.mkdtemp(prefix="two-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def hosts(folder: Path, broker_url: str) -> AsyncIterator[TwoHosts]:
    async with two_hosts(folder, broker_url, storage={"coalesce_delay": 0.1}) as made:
        yield made


async def test_a_disk_has_one_writer_whatever_two_hosts_do_with_it_at_once_even_cut_off(
    hosts: TwoHosts, folder: Path
) -> None:
    races = Races(hosts, Witness(folder / "witness"), seed=1)

    async def cut_off() -> None:
        await asyncio.sleep(0.5)
        await hosts.cut(1)
        try:
            await asyncio.sleep(0.5)
        finally:
            await hosts.heal(1)

    await races.run(rounds=250, disturb=cut_off)
    await races.settled()
    assert races.done["write"] > 20
    assert races.refused["write VDI_IN_USE"] > 5
