"""Sending the status report of a host to somebody who can help."""

from __future__ import annotations

import asyncio
import http.client
import tempfile

from services.api import archive, status_report
from services.api.api import Api
from services.api.host_side.outgoing import Outgoing
from shared.contracts.host import Upload
from shared.errors import ApiError


async def upload(api: Api, host: str, outgoing: Outgoing, request: Upload) -> None:
    """By PUT, as tar.bz2. Raises INVALID_VALUE [url, ...], SYSTEM_STATUS_RETRIEVAL_FAILED [reason]."""
    members = await status_report.collect(api, host, [])
    with tempfile.TemporaryFile() as file:

        async def keep(piece: bytes) -> None:
            await asyncio.to_thread(file.write, piece)

        await archive.send("tar.bz2", members, keep)
        try:
            status = await asyncio.to_thread(outgoing.upload, request.url, file, request.proxy)
        except ValueError:
            raise ApiError("INVALID_VALUE", "url", request.url) from None
        except (OSError, http.client.HTTPException) as error:
            raise ApiError("SYSTEM_STATUS_RETRIEVAL_FAILED", f"it cannot be sent: {error}") from None
    if not 200 <= status < 300:
        raise ApiError("SYSTEM_STATUS_RETRIEVAL_FAILED", f"the server answered {status}")
