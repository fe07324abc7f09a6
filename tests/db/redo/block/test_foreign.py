"""Redo logs that the original has written: no notes, deltas of any writer's version, cut where its writes were."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from services.db.redo.interface import RedoLogError
from shared.contracts.db import RowModified
from shared.redo_blocks.layout import Half
from tests.db.redo.block import original
from tests.db.redo.block.harness import SMALL, Primary, rows_of

MARKER = str(uuid.uuid4()).encode()
OPENING = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<database><manifest><pair key="schema_major_vsn" value="5"/>'
    '<pair key="schema_minor_vsn" value="800"/><pair key="generation_count" value="40"/></manifest>'
)
XML = (
    f'{OPENING}<table name="network"><row ref="OpaqueRef:n" __ctime="3" __mtime="9" _ref="OpaqueRef:n" '
    'uuid="u" name__label="as%.it%.was" other_config="()" of_another_version="x"/></table>'
    '<table name="of_another_version"/></database>'
).encode()


def texts(*parts: str) -> bytes:
    return b"".join(b"%08d%b" % (len(part.encode()), part.encode()) for part in parts)


def wrote(column: str, value: str, table: str = "network", ref: str = "OpaqueRef:n") -> bytes:
    return b"WriteFiel" + texts(table, ref, column, value)


def record(data: bytes, generation: int, marker: bytes = MARKER) -> bytes:
    return b"%016d%b%016d%b" % (len(data), data, generation, marker)


def written(path: Path, *records: bytes, half: Half = Half.SECOND, xml: bytes = XML, generation: int = 40) -> None:
    image = bytearray(SMALL.size)
    image[:18] = b"redo-log--------\0" + half.byte
    content = MARKER + record(xml, generation) + b"".join(records)
    start = SMALL.start(half)
    image[start : start + len(content)] = content
    path.write_bytes(image)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_database_and_its_deltas_are_read_as_the_original_does(path: Path) -> None:
    written(
        path,
        record(wrote("name__label", "é (x)"), 41),
        record(wrote("name__label", "seen already"), 41),
        record(wrote("name__description", "skipped some"), 57),
        record(wrote("of_another_version", "y"), 58),
        record(b"CreateRow" + texts("network", "OpaqueRef:m") + b"00000002" + texts("uuid", "v", "MTU", "9000"), 60),
        record(b"DeleteRow" + texts("network", "OpaqueRef:n"), 62),
    )
    primary = Primary(path)
    assert [record.generation for record in primary.found.records] == [41, 57, 58, 60, 62]
    assert primary.found.records[0].changes == [
        RowModified(cls="network", ref="OpaqueRef:n", fields={"name_label": "é (x)"})
    ]
    assert primary.found.generation == 62
    assert primary.found.term == 0
    rows = rows_of(primary.store)
    assert set(rows) == {("network", "OpaqueRef:m")}
    assert rows["network", "OpaqueRef:m"]["MTU"] == 9000


def test_ours_follow_theirs_in_the_same_half(path: Path) -> None:
    written(path, record(wrote("name__label", "theirs"), 41))
    primary = Primary(path)
    after = primary.commit(RowModified(cls="network", ref="OpaqueRef:n", fields={"name_description": "ours"}))
    image = path.read_bytes()
    assert primary.log.half is Half.SECOND
    found = original.read(image, SMALL.half)
    assert found is not None
    assert not found.error
    assert found.rows["network", "OpaqueRef:n"]["name_description"] == "ours"
    assert found.rows["network", "OpaqueRef:n"]["name_label"] == "theirs"
    again = primary.again()
    assert again.rows == after
    again.checkpoint()
    assert again.log.half is Half.FIRST
    assert again.again().rows == after


@pytest.mark.parametrize("cut", [5, 20, 60, 100, 120])
def test_a_delta_that_a_crash_has_cut_ends_theirs(path: Path, cut: int) -> None:
    last = record(wrote("name__label", "torn"), 42)
    written(path, record(wrote("name__label", "whole"), 41), last[:cut])
    primary = Primary(path)
    assert primary.rows["network", "OpaqueRef:n"]["name_label"] == "whole"


def test_the_rest_of_an_older_log_behind_the_end_is_not_read(path: Path) -> None:
    older = str(uuid.uuid4()).encode()
    written(
        path,
        record(wrote("name__label", "new"), 41),
        record(wrote("name__label", "old"), 99, older)[10:],
        record(wrote("name__label", "old"), 100, older),
    )
    assert Primary(path).rows["network", "OpaqueRef:n"]["name_label"] == "new"


def test_another_writers_marker_ends_it(path: Path) -> None:
    written(path, record(wrote("name__label", "a"), 41), record(wrote("name__label", "b"), 42, b"x" * 36))
    assert Primary(path).rows["network", "OpaqueRef:n"]["name_label"] == "a"


@pytest.mark.parametrize("xml", [XML[:-30], b"<database/>", XML.replace(b"<row ", b"<rwo ")])
def test_a_database_that_cannot_be_read_stops_the_start(path: Path, xml: bytes) -> None:
    written(path, xml=xml)
    with pytest.raises(RedoLogError, match="no database that can be read"):
        Primary(path)


def test_a_valid_half_without_a_database_stops_the_start(path: Path) -> None:
    written(path)
    image = bytearray(path.read_bytes())
    image[SMALL.start(Half.SECOND) + 36 : SMALL.start(Half.SECOND) + 52] = bytes(16)
    path.write_bytes(image)
    with pytest.raises(RedoLogError, match="it has no length"):
        Primary(path)


def test_a_log_that_fills_its_half_to_the_last_byte_is_read(path: Path) -> None:
    last = record(wrote("name__label", "last"), 42)
    room = SMALL.half - 36 - len(record(XML, 40)) - len(record(wrote("name__label", ""), 41)) - len(last)
    written(path, record(wrote("name__label", "x" * room), 41), last, half=Half.FIRST)
    primary = Primary(path)
    assert primary.rows["network", "OpaqueRef:n"]["name_label"] == "last"
    primary.checkpoint()
    assert primary.again().rows == primary.rows
