"""How the original reads a redo log, written from the description of its layout alone (`database-pool-ha` 2.1 to 2.4).

It shares no code with the log: offsets, numbers, markers and the texts of deltas are read anew here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.database_dump.reader import Reader
from shared.database_dump.schema import TABLES
from shared.datamodel import values

HALF = 62914560


@dataclass
class Found:
    """`rows`: by class and reference, the values of persistent columns. `error`: what ended the reading early.

    `applied`: kind and generation of each delta that counted; `skipped`: of how many the generation had been seen.
    `end`: offset in the image where the next delta would be.
    """

    generation: int = 0
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    applied: list[tuple[str, int]] = field(default_factory=list)
    skipped: int = 0
    error: str = ""
    end: int = 0


def read(image: bytes, half: int = HALF) -> Found | None:
    """None where there is nothing to read. Raises `ValueError` where the original would give up before the database."""
    if image[:16] != b"redo-log--------":
        return None
    validity = image[17:18]
    if validity not in (b"1", b"2"):
        return None
    at = 18 if validity == b"1" else 18 + half
    marker = image[at : at + 36]
    length = _number(image[at + 36 : at + 52])
    if length <= 0:
        return None
    xml = image[at + 52 : at + 52 + length]
    at += 52 + length
    generation = int(image[at : at + 16])
    if image[at + 16 : at + 52] != marker:
        raise ValueError("the database's markers differ")
    found = Found(generation, _rows(xml))
    _deltas(image, at + 52, marker, found)
    return found


def _number(digits: bytes) -> int:
    """No number counts as zero."""
    try:
        return int(digits.decode("ascii"))
    except ValueError:
        return 0


def _rows(xml: bytes) -> dict[tuple[str, str], dict[str, Any]]:
    reader = Reader()
    reader.feed(xml)
    return {(row.cls, row.ref): _persistent(row.cls, row.fields) for row in reader.close().rows}


def _persistent(cls: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        column.field.name: fields[column.field.name]
        for column in TABLES[cls].columns.values()
        if column.field is not None and column.read and column.field.name in fields
    }


def _deltas(image: bytes, at: int, marker: bytes, found: Found) -> None:
    expected = found.generation + 1
    while True:
        found.end = at
        length = _number(image[at : at + 16])
        if length <= 0:
            return
        data = image[at + 16 : at + 16 + length]
        at += 16 + length
        try:
            generation = int(image[at : at + 16])
        except ValueError:
            found.error = "a generation that is no number"
            return
        if image[at + 16 : at + 52] != marker:
            found.error = "markers differ"
            return
        at += 52
        kind, words = _parse(data)  # also of those that are skipped: what cannot be parsed ends it
        if generation < expected:
            found.skipped += 1
            continue
        expected = found.generation = generation
        expected += 1
        found.applied.append((kind, generation))
        _apply(kind, words, found.rows)


def _parse(data: bytes) -> tuple[str, list[str]]:
    kind = data[:9].decode()
    at = 9

    def word() -> str:
        nonlocal at
        length = int(data[at : at + 8])
        at += 8 + length
        text = data[at - length : at]
        assert len(text) == length
        return text.decode()

    if kind == "DeleteRow":
        words = [word(), word()]
    elif kind == "WriteFiel":
        words = [word(), word(), word(), word()]
    elif kind == "CreateRow":
        words = [word(), word()]
        count = int(data[at : at + 8])
        at += 8
        words += [word() for _ in range(2 * count)]
    else:
        raise ValueError(f"malformed: {kind}")
    assert at == len(data)
    return kind, words


def _apply(kind: str, words: list[str], rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    cls, ref = words[:2]
    columns = TABLES[cls].columns
    if kind == "DeleteRow":
        del rows[cls, ref]
        return
    row = rows[cls, ref] if kind == "WriteFiel" else rows.setdefault((cls, ref), {})
    for name, text in zip(words[2::2], words[3::2], strict=True):
        column = columns[name]
        if column.field is not None and column.read:
            row[column.field.name] = values.from_text(column.field.type, text)
