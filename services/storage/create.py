"""Prepares the folder of a new `file` SR before any service runs: for the default SR of a new pool.

    python -m services.storage.create --uuid U --name N --location DIR

Doing it again is not an error; a folder that holds another SR is.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from services.storage.options import StorageOptions
from services.storage.plugins.file.plugin import FilePlugin
from services.storage.plugins.file.qemu_img import QemuImg
from shared.errors import ApiError


async def create(uuid: str, name: str, location: str) -> None:
    """Raises `ApiError` as SR.create does."""
    options = StorageOptions()
    plugin = FilePlugin(QemuImg(options.qemu_img, options.qemu_img_timeout), options.lock_timeout)
    try:
        await plugin.sr.create(uuid, {"location": location}, name, "")
    finally:
        await plugin.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services.storage.create", description="Prepares a file SR.")
    parser.add_argument("--uuid", required=True)
    parser.add_argument("--name", default="", help="its name_label")
    parser.add_argument("--location", required=True, help="absolute path of the folder")
    given = parser.parse_args()
    try:
        asyncio.run(create(given.uuid, given.name, given.location))
    except ApiError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
