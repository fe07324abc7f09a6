"""The model as upstream evaluates it, read from the folder beside the repository; tests skip where that is absent."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shared.datamodel import MISSING
from shared.datamodel.types import BOOL, FLOAT, INT, STRING, EnumType, MapType, RefType, SetType, Type

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "reference"


def path(name: str) -> Path:
    file = FOLDER / name
    if not file.exists():
        pytest.skip(f"the reference file {file} is not on this machine", allow_module_level=True)
    return file


@cache
def classes() -> dict[str, dict[str, Any]]:
    return {cls["name"]: cls for cls in json.loads(path("datamodel.json").read_text())}


def table(name: str) -> list[list[str]]:
    """The rows of a tab-separated file, without its heading where it has one."""
    return [line.split("\t") for line in path(name).read_text().splitlines()]


def default(decl: dict[str, Any], type: Type) -> Any:
    """A default as the reference prints it, as a plain value; MISSING when there is none."""
    return value(decl["default"], type) if "default" in decl else MISSING


def value(text: str, type: Type) -> Any:
    if isinstance(type, MapType):
        pairs = [item.split(" -> ") for item in _items(text)]
        return {value(key, type.key): value(item, type.value) for key, item in pairs}
    if isinstance(type, SetType):
        return [value(item, type.of) for item in _items(text)]
    if isinstance(type, RefType):
        return "" if text == "Null" else text.strip('"')
    if isinstance(type, EnumType) and text == "{}":
        # An empty set is no word of an enum: the reference's slip, and a call relying on it fails there. Here it
        # means what leaving the value out means elsewhere.
        return "unknown"
    if type is BOOL:
        return {"true": True, "false": False}[text]
    if type is INT:
        return int(text)
    if type is FLOAT:
        return float(text)
    if type is STRING and text.startswith('"'):
        return text[1:-1]
    return text


def _items(text: str) -> list[str]:
    assert text[0] == "{"
    assert text[-1] == "}"
    return [item for item in text[1:-1].split(", ") if item]


def column_default(text: str, type: Type) -> Any:
    """A default as the table of columns prints it: `-`, `'text'`, `set[a,b]`, `map[k=v,...]`."""
    if text == "-":
        return MISSING
    if text.startswith("set["):
        assert isinstance(type, SetType)
        return [value(item, type.of) for item in text[4:-1].split(",") if item]
    if text.startswith("map["):
        return dict(item.split("=") for item in text[4:-1].split(",") if item)
    return value(text[1:-1], type)
