"""How far a client of `event.from` has seen."""

from __future__ import annotations

from typing import NamedTuple

from services.api.wire.unmarshal import integer
from shared.errors import ApiError


class Token(NamedTuple):
    """Generation of the rows, and of the messages (0 for who does not subscribe to them). Zero padding makes tokens
    sort as text.
    """

    generation: int
    messages: int

    @staticmethod
    def parse(text: str) -> Token:
        """ "" is the beginning. Raises EVENT_FROM_TOKEN_PARSE_FAILURE [token]."""
        if not text:
            return BEGINNING
        first, comma, second = text.partition(",")
        try:
            if not comma:
                raise ValueError("no comma")
            return Token(integer(first), integer(second))
        except ValueError:
            raise ApiError("EVENT_FROM_TOKEN_PARSE_FAILURE", text) from None

    def __str__(self) -> str:
        return f"{self.generation:020d},{self.messages:020d}"


BEGINNING = Token(0, 0)
