"""The tables and recorded answers of the original, where a checkout has them beside it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

_SHARED = Path(__file__).resolve().parents[3] / "shared"


def table(name: str) -> list[dict[str, str]]:
    path = _SHARED / "reference" / name
    if not path.exists():
        pytest.skip(f"the reference table {name} is not here", allow_module_level=True)
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def lines(name: str) -> list[dict[str, Any]]:
    path = _SHARED / "conformance" / name
    if not path.exists():
        pytest.skip(f"the recorded answers {name} are not here", allow_module_level=True)
    return [json.loads(line) for line in path.read_text().splitlines()]
