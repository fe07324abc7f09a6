"""Programs that a killed service has left: who waits for them, and what is said of one that does not end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.storage.plugins import lifetime
from services.storage.plugins.program import end, start


@pytest.fixture
def another_life(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The file descriptors of one service; those of this process stay as they are."""
    opened: list[int] = []
    monkeypatch.setattr(lifetime, "_inherited", opened)
    yield opened
    for descriptor in opened:
        os.close(descriptor)


async def left_program(file: Path, life: list[int]) -> asyncio.subprocess.Process:
    """Of a service that is dead."""
    await lifetime.begin(file)
    program = await start(["sleep", "60"])
    os.close(life.pop())
    return program


async def test_a_service_begins_when_the_programs_of_the_former_one_have_ended(
    tmp_path: Path, another_life: list[int]
) -> None:
    program = await left_program(tmp_path / "programs", another_life)
    beginning = asyncio.create_task(lifetime.begin(tmp_path / "programs"))
    done, _ = await asyncio.wait({beginning}, timeout=0.1)
    assert not done
    await end(program)
    await asyncio.wait_for(beginning, 10)
    assert lifetime.inherited() == tuple(another_life)


async def test_one_that_does_not_end_is_named_and_keeps_nobody_for_ever(
    tmp_path: Path, another_life: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    program = await left_program(tmp_path / "programs", another_life)
    await lifetime.begin(tmp_path / "programs", patience=0.1)
    assert f"sleep ({program.pid})" in caplog.text
    await end(program)
