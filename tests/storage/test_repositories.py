"""Which SRs a host has attached, and that it is nobody's who was not told of it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.journal import Changes
from shared.contracts.storage import SrAttach, SrCreate
from shared.errors import ApiError
from tests.storage.support import HOST_A, SR, Machine, machine


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Machine]:
    async with machine(tmp_path) as storage:
        yield storage


@pytest.mark.parametrize("end", [asyncio.CancelledError, OSError])
async def test_an_attach_whose_caller_is_not_told_leaves_the_sr_as_it_was(
    running: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    (tmp_path / "sr").mkdir()
    host, configuration = running[HOST_A], {"location": str(tmp_path / "sr")}
    await host.create_sr(SrCreate(sr=SR, type="file", device_config=configuration))
    write, written = running.journal.write, []

    async def ended(changes: Changes, sync: bool = True) -> None:
        written.append(changes)
        if len(written) == 2:  # that it is attached
            if end is OSError:
                raise OSError(errno.ENOSPC, "full")
            attaching.cancel()
        await write(changes, sync)

    monkeypatch.setattr(running.journal, "write", ended)
    attaching = asyncio.create_task(host.attach_sr(SrAttach(sr=SR, type="file", device_config=configuration)))
    with pytest.raises(end):
        await attaching
    assert host.repositories.attached() == host.repositories.missing() == []
    with pytest.raises(ApiError, match="SR_NOT_ATTACHED"):
        host.repositories.find(SR)
    assert not any(key.startswith("sr/") for key in running.journal.data)
