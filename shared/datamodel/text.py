"""Text that the database keeps: what an XML document can hold, as rows leave a pool as XML (backups, `ova.xml`)."""

from __future__ import annotations

import re
from typing import Any, Final

_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Control characters but TAB, LF and CR; lone surrogates; two non-characters."""


def is_storable(value: Any) -> bool:
    """Of a plain value: whether all text in it, keys too, can be kept as it is."""
    match value:
        case str():
            return _FORBIDDEN.search(value) is None
        case list():
            return all(map(is_storable, value))
        case dict():
            return all(map(is_storable, value)) and all(map(is_storable, value.values()))
    return True


def storable(value: Any) -> Any:
    """The plain value with each text cut before the first character that cannot be kept."""
    if is_storable(value):
        return value
    match value:
        case str():
            return _FORBIDDEN.split(value, maxsplit=1)[0]
        case list():
            return [storable(item) for item in value]
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
    return value
