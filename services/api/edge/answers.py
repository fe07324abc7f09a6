"""Answers of calls as the bytes of their replies, short ones whole and long ones in slices."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from services.api.edge import pages
from services.api.edge.dispatcher import Answer
from services.api.edge.handlers import Runs
from services.api.edge.reader import Request
from services.api.wire import jsonrpc, xmlrpc
from services.api.wire.codec import Call
from shared.errors import ApiError

log = logging.getLogger("edge")

SLICE = 256 * 1024
"""Bytes of a long answer that are joined and written at once: they fit the processor's cache."""


def is_long(answer: Answer) -> bool:
    """Whether it is to be sent in slices: at tens of megabytes every copy counts."""
    return bool(answer.pieces) or (len(answer.value) > SLICE and answer.error is None and not answer.bare)


def of_error(call: Call, error: Exception) -> Answer:
    """What a call answers that has raised it."""
    if isinstance(error, ApiError):
        return Answer(error=error.description)
    log.error("%s failed", call.method, exc_info=error)
    return Answer(error=["INTERNAL_ERROR", f"{type(error).__name__}: {error}"])


def whole(request: Request, call: Call, answer: Answer) -> bytes:
    if answer.error is not None:
        body = call.early_failure(answer.error) if answer.early else call.failure(answer.error)
    else:
        body = call.bare(answer.value) if answer.bare else call.success(answer.value)
    return _head(request, len(body), answer) + body


def in_slices(request: Request, call: Call, answer: Answer) -> Iterator[bytes]:
    """Of a long one."""
    before, after = call.envelope()
    pieces = answer.pieces or [answer.value]
    length = len(before) + sum(map(len, pieces)) + len(after)
    return _slices([_head(request, length, answer), before, *pieces, after])


def _head(request: Request, length: int, answer: Answer) -> bytes:
    head = request.head
    content_type = xmlrpc.CONTENT_TYPE if request.row.runs is Runs.XMLRPC else jsonrpc.CONTENT_TYPE
    thumbprint = answer.thumbprint if request.caller.thumbprint else ""
    return pages.call_head(length, content_type, http10=head.http10, keep_alive=head.keep_alive, thumbprint=thumbprint)


def _slices(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces joined to about `SLICE` bytes each."""
    joined: list[bytes] = []
    size = 0
    for piece in pieces:
        joined.append(piece)
        size += len(piece)
        if size >= SLICE:
            yield b"".join(joined)
            joined.clear()
            size = 0
    if joined:
        yield b"".join(joined)
