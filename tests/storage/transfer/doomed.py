"""A storage process that prepares an import, says which disk and which processes, and waits to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil

from tests.storage.transfer.bench import bench


async def main() -> None:
    async with bench(Path(sys.argv[1])) as storage:
        location = await storage.disk()
        await storage.accept(location)
        print(location, *(child.pid for child in psutil.Process().children()), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
