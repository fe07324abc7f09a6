"""`/blob`: reading and replacing the content of a blob."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from typing import Final

from services.api import clock
from services.api.edge.credentials import credential
from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.handler import Request, handler
from shared.contracts.db import Update
from shared.errors import ApiError, internal_error

PIECE: Final = 256 * 1024
"""Bytes read from the file at once."""

_ACCEPTED: Final = (
    ("connection", "keep-alive"),
    ("cache-control", "no-cache, no-store"),
    ("Access-Control-Allow-Origin", "*"),
)


def _here(request: Request) -> None:
    """Contents are with the coordinator."""
    request.on_coordinator()


def _found(request: Request) -> tuple[str, str]:
    """(reference, uuid) of the blob. Raises `HttpRefusal` 404."""
    query, store = request.query, request.store
    ref = query["ref"] if "ref" in query else store.ref_of_uuid("blob", query["uuid"]) or ""
    row = store.row("blob", ref)
    if row is None:
        raise HttpRefusal(404, "Unknown reference\n", bare=True, error=ApiError("HANDLE_INVALID", "blob", ref))
    return ref, str(row["uuid"])


@contextlib.asynccontextmanager
async def _allowed(request: Request, blob: str) -> AsyncIterator[None]:
    """A public blob is anybody's; any other wants a session."""
    if request.store.get("blob", blob, "public"):
        yield
        return
    found = credential(request.exchange.head, trusted=request.caller.trusted)
    if found is None:
        raise HttpRefusal(401, realm="Blob handler")
    try:
        async with request.authenticator.session(request.caller, found, request.row.permission):
            yield
    except ApiError as error:
        if error.code in ("SESSION_INVALID", "SESSION_AUTHENTICATION_FAILED"):
            raise HttpRefusal(401, realm="Blob handler", error=error) from None
        raise


@handler("get_blob", before=_here)
async def get_blob(request: Request) -> None:
    ref, uuid = _found(request)
    async with _allowed(request, ref), request.api.blobs.open(uuid) as file:
        if file is None:
            raise HttpRefusal(404, bare=True, error=internal_error("nothing was put there yet"))
        left = os.fstat(file.fileno()).st_size
        await request.stream.start(
            [
                ("content-length", str(left)),
                ("content-type", request.store.get("blob", ref, "mime_type")),
                ("connection", "close"),
                ("cache-control", "no-cache, no-store"),
            ]
        )
        while left and (data := await asyncio.to_thread(file.read, min(PIECE, left))):
            left -= len(data)
            await request.stream.write(data)


@handler("put_blob", before=_here)
async def put_blob(request: Request) -> None:
    """The reply's head comes before the body is read, its end (the connection's) when the content is in place."""
    ref, uuid = _found(request)
    api, stream = request.api, request.stream
    if stream.length is None:
        raise HttpRefusal(400, bare=True, error=internal_error("Content-Length is missing"))
    if not await asyncio.to_thread(api.blobs.has_room, stream.length):
        raise internal_error(f"{os.strerror(errno.ENOSPC)}: {stream.length} bytes do not fit")
    await request.accept(_ACCEPTED)
    async with api.blobs.replacement(uuid) as new:
        while data := await stream.read():
            await new.write(data)
        # Of several that are put at once, the size is that of the one that stays.
        async with api.turns.of(("blob", ref)):
            await new.install()
            written = {"size": new.size, "last_updated": clock.now()}
            try:
                await api.database.transact([Update(cls="blob", ref=ref, fields=written)])
            except ApiError as error:
                if error.code == "HANDLE_INVALID":  # it was destroyed meanwhile
                    await asyncio.to_thread(api.blobs.remove, uuid)
                raise
