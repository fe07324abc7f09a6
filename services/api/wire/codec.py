"""What the two codecs have in common, so that rows can be encoded field by field and kept.

A *fragment* is a complete value in one codec, as bytes; a *member* is a named fragment, ready to be joined into a
record. Whoever keeps fragments keys them by `Codec.name`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Protocol

from shared.datamodel import model
from shared.datamodel.types import OptionType, RecordType, Type

Encoder = Callable[[Any], bytes]
RowEncoder = Callable[[dict[str, Any]], bytes]
"""From the fields of a row, all of them and in the model's order (as `shared.store` keeps them), to its record."""


class Codec(Protocol):
    """XML-RPC or JSON-RPC, as far as values go. One instance of each; envelopes belong to the call (`Call`)."""

    @property
    def name(self) -> Literal["xml", "json"]: ...

    def encoder(self, type_: Type) -> Encoder:
        """From a plain value of that type to a fragment. Compiled once per type."""
        ...

    def member_encoder(self, name: str, type_: Type) -> Encoder:
        """From a field's value to its member. A None of an option type gives b""."""
        ...

    def member(self, name: str, fragment: bytes) -> bytes:
        """A member from a fragment: for maps of records, whose keys are references."""
        ...

    def row_encoder(self, cls: str) -> RowEncoder:
        """The quick way to the record of a row. Compiled once per class."""
        ...

    def record(self, members: Iterable[bytes]) -> bytes:
        """The fragment of a record or map."""
        ...

    def map_pieces(self, names: Sequence[str], fragments: Iterable[bytes]) -> list[bytes]:
        """The fragment of a map of fragments, in pieces that are joined when they are sent; they are not copied."""
        ...

    def array(self, fragments: Iterable[bytes]) -> bytes:
        """The fragment of a set."""
        ...

    def native_int(self, value: int) -> bytes:
        """An integer that is a number on the wire: only `valid_ref_counts` of `event.from` has such."""
        ...


class Call(Protocol):
    """One parsed call: what it asks, and the envelope in which its answer goes."""

    @property
    def method(self) -> str: ...

    @property
    def params(self) -> list[Any]:
        """Raw values (see `raw`)."""
        ...

    def success(self, fragment: bytes) -> bytes:
        """The whole body of a successful reply."""
        ...

    def envelope(self) -> tuple[bytes, bytes]:
        """What such a body has before and after its fragment."""
        ...

    def failure(self, description: list[str]) -> bytes:
        """The whole body of a Failure. `description`: code, then parameters."""
        ...

    def early_failure(self, description: list[str]) -> bytes:
        """The body of a failure found before the call was looked at (emergency mode, bad text)."""
        ...

    def bare(self, fragment: bytes) -> bytes:
        """A reply without the Status wrapper (`system.listMethods`)."""
        ...


@cache
def record_fields(type_: RecordType) -> Mapping[str, Type]:
    """Wire name -> type of the fields that clients see, in the model's order."""
    return {f.name: f.type for f in model.classes[type_.cls].fields.values() if not f.internal_only}


def present(type_: Type, value: Any) -> bool:
    """Whether a field of a record is on the wire at all."""
    return not (value is None and isinstance(type_, OptionType))
