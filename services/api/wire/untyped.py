"""Values whose type nobody declares: what extensions answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.wire.codec import Codec
from shared.datamodel.types import BOOL, FLOAT, STRING


def fragment(codec: Codec, value: Any) -> bytes:
    """A text, number, truth value, list or map, encoded. Integers are text, as everywhere."""
    if isinstance(value, bool):
        return codec.encoder(BOOL)(value)
    if isinstance(value, float):
        return codec.encoder(FLOAT)(value)
    if isinstance(value, Mapping):
        return codec.record([codec.member(str(name), fragment(codec, item)) for name, item in value.items()])
    if isinstance(value, list | tuple):
        return codec.array([fragment(codec, item) for item in value])
    return codec.encoder(STRING)("" if value is None else str(value))
