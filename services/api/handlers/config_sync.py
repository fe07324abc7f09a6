"""`/sync_config_files/<n>`: what all hosts of a pool have to agree on beside the database."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.handler import Request, handler
from shared import passwords
from shared.errors import internal_error


@handler("get_config_sync")
async def get_config_sync(request: Request) -> None:
    """Version 2: the superuser's password hash. Older ones were whole files, which nobody asks for any more."""
    version = request.exchange.head.path.removeprefix(request.row.path)
    if not (version.isascii() and version.isdigit()) or int(version[:9]) < 2:
        raise HttpRefusal(404, bare=True, error=internal_error(f"there is no version {version!r} of these files"))
    options = request.api.options
    if options.auth != "file":
        raise HttpRefusal(501, "This host's passwords are the operating system's.")
    try:
        users = await asyncio.to_thread(passwords.read, Path(options.password_file))
    except (OSError, ValueError) as error:
        raise internal_error(f"the password file cannot be used: {error}") from error
    text = json.dumps({"password": users.get("root", "")}).encode()
    await request.stream.start(
        [
            ("content-length", str(len(text))),
            ("content-type", "application/json"),
            ("connection", "close"),
            ("cache-control", "no-cache, no-store"),
        ]
    )
    await request.stream.write(text)
