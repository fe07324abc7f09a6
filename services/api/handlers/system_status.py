"""`/system-status` and `/host_logs_download`: what helps others to understand a host."""

from __future__ import annotations

import asyncio
from typing import Final

from services.api import archive, status_report
from services.api.archive import Format, Member
from services.api.edge.dispatcher import HttpRefusal
from services.api.handlers.handler import Request, attachment, handler
from services.api.host_logs import log_files
from shared.errors import ApiError

_CLOSING: Final = (("connection", "close"), ("cache-control", "no-cache, no-store"))

_FORMATS: Final[dict[str, tuple[Format, str]]] = {
    "tar": ("tar", "appliation/x-tar"),  # as the original spells it
    "tar.bz2": ("tar.bz2", "application/x-bzip2"),
    "zip": ("zip", "application/zip"),
}
"""Argument `output` to the archive's form and content type."""


@handler("get_system_status")
async def get_system_status(request: Request) -> None:
    """The reply has no length: it is made while it is sent."""
    if "list" in request.query:
        text = status_report.capabilities().encode()
        await request.stream.start([("content-length", str(len(text))), ("content-type", "text/xml"), *_CLOSING])
        await request.stream.write(text)
        return
    output = request.argument("output") or "tar"
    if output not in _FORMATS:
        raise ApiError("SYSTEM_STATUS_RETRIEVAL_FAILED", f"there is no output {output!r}: {', '.join(_FORMATS)}")
    form, content_type = _FORMATS[output]
    wanted = [key for key in request.argument("entries").split(",") if key]
    members = await status_report.collect(request.api, request.caller.host, wanted)
    await request.stream.start([("content-type", content_type), *_CLOSING, attachment(f"system-status.{output}")])
    await archive.send(form, members, request.stream.write)


@handler("get_host_logs_download")
async def get_host_logs_download(request: Request) -> None:
    folder = request.api.options.log_dir
    if not folder:
        raise HttpRefusal(501, "This host's logs are not kept in files of its own.")
    members = [Member(path.name, path) for path in await asyncio.to_thread(log_files, folder)]
    await request.stream.start([("content-type", "application/x-gzip"), *_CLOSING, attachment("logs.tar.gz")])
    await archive.send("tar.gz", members, request.stream.write)
