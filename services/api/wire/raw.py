"""What a client sent, before anybody knows which types were meant: the common ground of both codecs.

A raw value is None, bool, int, float, str, `DateTime`, list or dict (the first of duplicate members counts). XML-RPC
and JSON give the same tree, so there is one place that turns raw values into typed ones: `unmarshal`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from services.api.wire.unmarshal import decoder, expected
from shared.datamodel.types import STRING, Type

Raw: TypeAlias = Any


class Malformed(Exception):
    """The body is not a call of its protocol at all. Answered with HTTP 500, not with a Failure."""


class RawParams:
    """The positional parameters of one call, typed on demand. `values`: raw, for forwarding the call as it came."""

    __slots__ = ("values",)

    def __init__(self, values: list[Raw]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def get(self, index: int, type: Type) -> Any:
        """The parameter as a plain value of the data model. Raises INTERNAL_ERROR when it is of another type."""
        return decoder(type)(self.values[index])

    def text(self, index: int) -> str:
        """A parameter that is always text: the session reference, first of nearly every call."""
        value = self.values[index]
        if type(value) is str:
            return value
        raise expected(STRING, value)
