"""Maps of reference to record, of any number of rows: `get_all_records` and its kin.

One call sees one state of the rows, although the API goes on answering others meanwhile: fragments are bytes, and the
fields of a row are one state for ever (`shared.store`), so both are taken at once and joined when they are sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from services.api.wire.codec import Codec
from shared.store import Row

Encoded = bytes | list[bytes]
"""A fragment; a long one in pieces, to be joined as they are sent."""

FEW: Final = 64
"""Rows that are encoded at once and answered in one piece."""

TURN: Final = 0.005
"""Seconds of encoding after which others get their turn."""


def row_fragment(codec: Codec, cls: str, row: Row) -> bytes:
    """The row's record, encoded once for each state of the row."""
    known: bytes | None = row.fragments.get(codec.name)
    if known is None:
        known = row.fragments[codec.name] = codec.row_encoder(cls)(row.fields)
    return known


def record_map(codec: Codec, cls: str, rows: Mapping[str, Row]) -> Encoded | Coroutine[Any, Any, Encoded]:
    """The records of these rows as they are now. A coroutine when it takes longer than others should wait."""
    name = codec.name
    if len(rows) <= FEW:
        return b"".join(codec.map_pieces(list(rows), [row_fragment(codec, cls, row) for row in rows.values()]))
    fragments: list[bytes | None] = [row.fragments.get(name) for row in rows.values()]
    missing = [(at, row, row.fields) for at, row in enumerate(rows.values()) if fragments[at] is None]
    if len(missing) <= FEW:
        for at, row, _ in missing:
            fragments[at] = row_fragment(codec, cls, row)
        return codec.map_pieces(list(rows), fragments)  # type: ignore[arg-type]
    return _in_turns(codec, cls, list(rows), fragments, missing)


async def _in_turns(
    codec: Codec,
    cls: str,
    refs: list[str],
    fragments: list[bytes | None],
    missing: list[tuple[int, Row, dict[str, Any]]],
) -> Encoded:
    """`missing`: place, row and the fields it had when the call came, of those that nobody has encoded."""
    encode = codec.row_encoder(cls)
    begun = time.perf_counter()
    for number, (at, row, fields) in enumerate(missing):
        if number % 16 == 0 and time.perf_counter() - begun > TURN:
            await asyncio.sleep(0)
            begun = time.perf_counter()
        fragments[at] = row_fragment(codec, cls, row) if row.fields is fields else encode(fields)
    return codec.map_pieces(refs, fragments)  # type: ignore[arg-type]
