"""`PUT /messages`: messages about an object that came from another pool, with their times.

The body is one XML element `message` after the other, each as the other pool stores it; nothing says how many.
"""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import AsyncIterator
from typing import Any, Final

from lxml import etree

from services.api import clock
from services.api.call import new_ref
from services.api.edge.dispatcher import HttpRefusal
from services.api.edge.stream import Stream
from services.api.handlers.handler import Request, handler
from services.api.operations.message import CLASSES
from shared.contracts.db import Change, Create
from shared.errors import ApiError, internal_error

LARGEST: Final = 1024 * 1024
"""Bytes of one message. Bodies of 200 kB have been seen."""
BATCH: Final = 200
"""Messages written in one transaction."""

_ACCEPTED: Final = (("connection", "close"), ("cache-control", "no-cache, no-store"))
_END: Final = re.compile(rb"</message\s*>")
_DECLARATION: Final = re.compile(rb"\A\s*(<\?xml[^>]*\?>\s*)?")
_FIELDS: Final = ("name", "priority", "timestamp", "uuid", "body")


def _object(request: Request) -> None:
    """Raises `HttpRefusal` 302; 400 for a class that has no messages; UUID_INVALID."""
    request.on_coordinator()
    cls, uuid = request.query["cls"], request.query["uuid"]
    if cls not in CLASSES:
        raise HttpRefusal(400, bare=True, error=ApiError("INVALID_VALUE", "cls", cls))
    if request.store.ref_of_uuid(CLASSES[cls], uuid) is None:
        raise ApiError("UUID_INVALID", cls, uuid)


@handler("put_messages", before=_object)
async def put_messages(request: Request) -> None:
    """They are about the object that `cls` and `uuid` name, whatever it was called where they come from."""
    cls, uuid = request.query["cls"], request.query["uuid"]
    await request.accept(_ACCEPTED)
    batch: dict[str, Change] = {}
    async for element in _elements(request.stream):
        fields = {**parse(element), "cls": cls, "obj_uuid": uuid}
        if fields["uuid"] not in request.store.by_uuid:  # else it was brought here before
            batch[fields["uuid"]] = Create(cls="message", ref=new_ref(), fields=fields)
        if len(batch) == BATCH:
            await request.api.database.transact([*batch.values()])
            batch = {}
    if batch:
        await request.api.database.transact([*batch.values()])


async def _elements(stream: Stream) -> AsyncIterator[bytes]:
    """Each message's XML. Raises INTERNAL_ERROR."""
    waiting, searched = bytearray(), 0
    while data := await stream.read():
        waiting += data
        while found := _END.search(waiting, max(0, searched - 64)):
            yield bytes(waiting[: found.end()])
            del waiting[: found.end()]
            searched = 0
        searched = len(waiting)
        if searched > LARGEST:
            raise internal_error(f"a message is larger than {LARGEST} bytes")
    if waiting.strip():
        raise internal_error("the last message has no end")


def parse(element: bytes) -> dict[str, Any]:
    """The fields of one message. Raises INTERNAL_ERROR for what is none."""
    text = _DECLARATION.sub(b"", element, count=1)
    if b"<!DOCTYPE" in text:
        raise internal_error("a message with declarations")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(text, parser)
    except etree.XMLSyntaxError as error:
        raise internal_error(f"not a message: {error}") from None
    if root.tag != "message":
        raise internal_error("not a message")
    values = {name: root.findtext(name) for name in _FIELDS}
    missing = [name for name in ("name", "priority", "timestamp") if not values[name]]
    if missing:
        raise internal_error(f"a message without {', '.join(missing)}")
    try:
        clock.seconds(str(values["timestamp"]))
        priority = int(str(values["priority"]))
    except ValueError as error:
        raise internal_error(f"not a message: {error}") from None
    if not -(2**63) <= priority < 2**63:
        raise internal_error("a priority that is no 64-bit number")
    return {
        "uuid": _uuid(values["uuid"] or ""),
        "name": values["name"],
        "priority": priority,
        "timestamp": values["timestamp"],
        "body": values["body"] or "",
    }


def _uuid(text: str) -> str:
    """The message's own, so that it is not brought twice; a new one for what is none."""
    try:
        return str(uuids.UUID(text))
    except ValueError:
        return str(uuids.uuid4())
