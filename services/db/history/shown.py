"""What of a value may be kept for people to read: secrets are not, long values are cut, sessions are named as in logs.

Sets and maps are told by their differences, so that a map of a hundred keys in which one changed takes one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any, Final

from shared.contracts.db_history import HIDDEN
from shared.datamodel import model
from shared.datamodel.types import MapType, RefType, SetType, Type
from shared.logs import track_id
from shared.store import NULL

LONGEST_TEXT: Final = 1024
"""Characters; of a longer one the first `KEPT_TEXT` stay."""
KEPT_TEXT: Final = 256
LONGEST_LIST: Final = 64
"""Members of a set, or keys of a map, that are told."""

Pair = tuple[Any, Any]
Show = Callable[[Any, Any], Pair]
"""From the old and the new value of a field to what is kept of them."""

_SECRET_NAME: Final = re.compile(
    r"passw|passphrase|(^|[^a-z])(pass|pwd)($|[^a-z])|secret|token$|credential|(^|[_-]|private|secret|access)key$",
    re.IGNORECASE,
)
_IN_URL: Final = re.compile(r"(://[^/@\s:]*):[^/@\s]*@")
_SECRETS: Final = frozenset({("secret", "value"), ("task", "result")})
"""Fields whose name does not say it."""


@lru_cache(maxsize=4096)
def secret(name: str) -> bool:
    """Whether a field, or a key of a map, of that name holds what nobody may read."""
    return _SECRET_NAME.search(name) is not None


def text(value: str) -> str:
    """Without the password of a URL, and not too long."""
    if "://" in value and "@" in value:
        value = _IN_URL.sub(rf"\1:{HIDDEN}@", value)
    if len(value) > LONGEST_TEXT:
        return f"{value[:KEPT_TEXT]}… ({len(value)} characters)"
    return value


def _any(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return _list(value)
    if isinstance(value, dict):
        return _map({key: HIDDEN if secret(key) else _any(item) for key, item in value.items()})
    return value


def _list(members: list[Any]) -> list[Any]:
    shown = [_any(member) for member in members[:LONGEST_LIST]]
    return shown if len(members) <= LONGEST_LIST else [*shown, f"… ({len(members)} in all)"]


def _map(entries: dict[str, Any]) -> dict[str, Any]:
    if len(entries) <= LONGEST_LIST:
        return entries
    kept = dict(list(entries.items())[:LONGEST_LIST])
    return {**kept, "…": f"({len(entries)} in all)"}


def _values(old: Any, new: Any) -> Pair:
    return _any(old), _any(new)


def _hidden(old: Any, new: Any) -> Pair:
    return HIDDEN if old else old, HIDDEN if new else new


def _members(old: list[Any], new: list[Any]) -> Pair:
    """Those that went and those that came; all of them when only their order is another one."""
    went, came = _without(old, new), _without(new, old)
    if not went and not came:
        return _list(old), _list(new)
    return _list(went), _list(came)


def _without(some: list[Any], others: list[Any]) -> list[Any]:
    try:
        known: Collection[Any] = frozenset(others) if len(others) > 8 else others
        return [member for member in some if member not in known]
    except TypeError:  # members that cannot be hashed: sets of maps are short
        return [member for member in some if member not in others]


def _entries(old: dict[str, Any], new: dict[str, Any]) -> Pair:
    went = {key: value for key, value in old.items() if key not in new or new[key] != value}
    came = {key: value for key, value in new.items() if key not in old or old[key] != value}
    return _any(went), _any(came)


def _session(ref: str) -> str:
    return ref if ref == NULL else track_id(ref)


def _sessions(old: Any, new: Any) -> Pair:
    return _session(old), _session(new)


def _session_lists(old: list[str], new: list[str]) -> Pair:
    return _members(list(map(_session, old)), list(map(_session, new)))


def _show(cls: str, name: str, type_: Type) -> Show:
    if (cls, name) in _SECRETS or secret(name):
        return _hidden
    if type_ == RefType("session"):
        return _sessions
    if type_ == SetType(RefType("session")):
        return _session_lists
    if isinstance(type_, SetType):
        return _members
    return _entries if isinstance(type_, MapType) else _values


SHOWN: Final[dict[str, dict[str, Show]]] = {
    name: {field.name: _show(name, field.name, field.type) for field in cls.fields.values()}
    for name, cls in model.classes.items()
}
"""By class and field."""
