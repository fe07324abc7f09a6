"""Checksums of disks: of all their bytes, also of those that nobody has written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from shared.contracts.transfer import Checksum
from tests.storage.support import MIB, SR, new_uuid
from tests.storage.transfer.bench import Model, Reports, bench

SIZE = 3 * MIB + 512


async def test_a_checksum_is_that_of_the_whole_disk(tmp_path: Path) -> None:
    async with bench(tmp_path) as storage:
        model, location = Model(SIZE, 7), await storage.disk(SIZE)
        async with storage.opened(location) as client:
            await model.change(client)
        request = Checksum(dp=f"task/{new_uuid()}", sr=SR, location=location)
        found = await storage.transfers.checksum(request, Reports())
        assert found.md5 == hashlib.md5(model.content, usedforsecurity=False).hexdigest()
        assert storage.nothing_is_open()
