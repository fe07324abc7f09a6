"""Disks into streams and back, with real workers and servers; each block is compared with a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.contracts.transfer import Format
from shared.errors import ApiError
from tests.storage.support import MIB
from tests.storage.transfer.bench import Bench, Model, bench

FORMATS: tuple[Format, ...] = ("raw", "vhd", "qcow2", "tar")
SIZE = 5 * MIB + 512 * 3


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as running:
        yield running


async def filled(storage: Bench, seed: int = 1, size: int = SIZE) -> tuple[str, Model]:
    model, location = Model(size, seed), await storage.disk(size)
    async with storage.opened(location) as client:
        await model.change(client)
    return location, model


@pytest.mark.parametrize("form", FORMATS)
async def test_what_is_exported_and_imported_is_the_same_disk(storage: Bench, form: Format) -> None:
    location, model = await filled(storage)
    prepared = await storage.export(location, form)
    stream = await storage.take(prepared)
    assert prepared.length in (None, len(stream))
    target, _ = await filled(storage, seed=2)  # which does not shine through
    moved = await storage.give(await storage.accept(target, form), stream)
    assert await storage.content(target) == model.content
    assert moved.data <= SIZE
    assert storage.nothing_is_open()
