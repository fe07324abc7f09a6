"""`task.result`: the XML text of the value with its `<value>` tag, whichever protocol made the call."""

from __future__ import annotations

from typing import Any

from services.api.wire import xmlrpc
from services.api.wire.unmarshal import decoder
from shared.datamodel.types import Type


def to_text(type_: Type, value: Any) -> str:
    """`<value>OpaqueRef:…</value>`; `<value></value>` for void."""
    return xmlrpc.value_text(type_, value)


def from_text(type_: Type, text: str) -> Any:
    """The inverse. Raises `Malformed` for what is not a value, INTERNAL_ERROR for one of another type."""
    return decoder(type_)(xmlrpc.parse_value(text))
