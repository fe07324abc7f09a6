"""What is left of mirrors that the hypervisor could not be told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from services.storage.journal import Journal
from services.storage.motion import mirrors
from services.storage.motion.mirrors import Mirrors
from services.storage.motion.sending import Far, Reached, Sending
from shared.bus.contract import Empty, Method
from shared.bus.interface import Bus
from shared.contracts import motion, vm_disks
from shared.contracts.storage import Backend
from shared.errors import ApiError
from tests.storage.support import HOST_A, HOST_B, SR


class Hypervisor:
    """A VM service that is away for its first calls."""

    def __init__(self) -> None:
        self.away = 2
        self.told = asyncio.Event()

    async def call(self, method: Method[Any, Any], _: object, **__: object) -> Empty:
        if self.away:
            self.away -= 1
            raise ApiError("HOST_OFFLINE", HOST_A)
        assert method is vm_disks.DISK_MIRROR_END
        self.told.set()
        return Empty()


class Near:
    @asynccontextmanager
    async def reached(self, far: Far) -> AsyncIterator[Reached]:
        yield Reached(Backend(dp=far.dp, kind="nbd", path="", format="raw", writable=True), 0)


async def test_a_mirror_that_could_not_be_begun_nor_given_up_is_cleared_away_when_the_hypervisor_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "AGAIN", 0.01)
    hypervisor, journal = Hypervisor(), Journal(tmp_path / "journal")
    made = Mirrors(HOST_A, cast(Bus, hypervisor), journal, cast(Sending, Near()))
    clearing = asyncio.create_task(made.clear())
    await asyncio.sleep(0)  # it has nothing to do
    wanted = motion.Mirror(dp="motion/disk", disk="vbd/vm/0", to_host=HOST_B, sr=SR, location="disk")
    with pytest.raises(ApiError, match="HOST_OFFLINE"):
        await made.start(wanted)
    async with asyncio.timeout(10):
        await hypervisor.told.wait()
    clearing.cancel()
    await asyncio.wait({clearing})
    await journal.close()
