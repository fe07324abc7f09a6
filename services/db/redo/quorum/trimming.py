"""Takes messages out of the queue that nobody needs any more."""

from __future__ import annotations

from collections.abc import Callable

from services.db.redo.quorum import messages
from services.db.redo.quorum.link import Link
from services.db.redo.quorum.messages import Damaged, Message


def trim(link: Link, queue: str, unneeded: Callable[[Message], bool]) -> int:
    """How many. Nobody else can read meanwhile. Raises `LinkError`: some may be gone."""
    tags: list[int] = []

    def receive(tag: int, body: bytes) -> None:
        try:
            head = messages.decoded(body)[0]
        except Damaged:
            return  # no business of ours
        if unneeded(head):
            tags.append(tag)

    reader = link.read(queue, receive)
    reader.to_end()
    reader.acknowledge(tags)
    reader.close()
    return len(tags)
