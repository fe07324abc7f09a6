"""How an entry of the database's history reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_PLAIN: Final = re.compile(r"[\w.:/+@%-]+", re.ASCII)
_KINDS: Final = {"add": "created", "del": "removed", "mod": "changed", "rel": "referred to"}


def lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """A line that says when and who, one for each object, one for each field.

    2026-11-22T17:03:11.042Z #4711 VM.set_name_label by root (xe) trackid=5d41402abc4b2a76b9719d911017c592
        changed VM web01 (3f1c...)
            name-label: db -> web01
    """
    yield " ".join(_head(entry))
    for change in entry["changes"]:
        name = f" {_value(change['name'])}" if change["name"] else ""
        yield f"    {_KINDS[change['kind']]} {change['class']}{name} ({_clean(change['uuid'] or change['ref'])})"
        for field, values in change["fields"].items():
            label = field.replace("_", "-")
            for line in _differences(label, values["old"], values["new"]):
                yield f"        {line}"


def _head(entry: Mapping[str, Any]) -> Iterator[str]:
    yield f"{entry['time']} #{entry['generation']}"
    if entry["kind"] != "commit":
        yield f"{entry['kind']}:"
    if entry["note"]:
        yield _clean(entry["note"]) if entry["kind"] != "commit" else f"[{_clean(entry['note'])}]"
    if entry["call"]:
        yield _clean(entry["call"])
    if entry["user"]:
        yield f"by {_clean(entry['user'])}"
    if entry["originator"]:
        yield f"({_clean(entry['originator'])})"
    if entry["session"]:
        yield entry["session"]
    if entry["task"]:
        yield f"task {_clean(entry['task'])}"


def _differences(label: str, old: Any, new: Any) -> Iterator[str]:
    """Of maps a line for each key; of sets who went and who came."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            before = _value(old[key]) if key in old else "(none)"
            after = _value(new[key]) if key in new else "(none)"
            yield f"{label}:{_clean(key)}: {before} -> {after}"
        return
    if isinstance(old, list) and isinstance(new, list):
        yield f"{label}: " + " ".join([*(f"-{_value(one)}" for one in old), *(f"+{_value(one)}" for one in new)])
        return
    yield f"{label}: {_value(old)} -> {_value(new)}"


def _value(value: Any) -> str:
    """A plain word as it is, anything else in quotation marks."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and (_PLAIN.fullmatch(value) or value == "(hidden)"):
        return value
    return _clean(json.dumps(value, ensure_ascii=False))


def _clean(text: str) -> str:
    """Without what would command the terminal."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
