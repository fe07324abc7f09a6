"""What is written is read again: every class, whatever its values are."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts.db import Delta, RowChange, RowDeleted, RowModified, SnapshotRow
from shared.database_dump.reader import Dump, Reader
from shared.database_dump.schema import SCHEMA_VERSION, TABLES, Table
from shared.database_dump.writer import moment, pieces
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, EnumType, MapType, SetType, Type
from shared.store import Store

ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
NASTY = (
    *(
        "",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "%",
        "%.",
        "%_",
        "%%t",
        "'",
        '"',
        "\\",
        "\\'",
        "('a' 'b')",
        "(",
        ";x",
        "<",
        "]]>",
    ),
    *(
        "&amp;",
        "&#10;",
        "a b",
        " a ",
        "é",
        "\u2028",
        "\ufeff",
        "😀",
        "\x00",
        "\x1b",
        "\x7f",
        "\x85",
        "\ud800",
        "\uffff",
    ),
)
TEXTS = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=12)), min_size=3, max_size=20)


def value(type_: Type, texts: list[str], random: Random) -> Any:
    if type_ is BOOL:
        return random.random() < 0.5
    if type_ is INT:
        return random.choice((0, -1, 42, 2**63 - 1, -(2**63)))
    if type_ is FLOAT:
        return random.choice((0.0, 0.1, -1.5, 1e300, 5e-324, 1.7e308))
    if type_ is DATETIME:
        return "20250102T03:04:05Z"
    if isinstance(type_, EnumType):
        return random.choice(type_.values)
    if isinstance(type_, SetType):
        return [value(type_.of, texts, random) for _ in range(random.randrange(3))]
    if isinstance(type_, MapType):
        keys = [str(value(type_.key, texts, random)) for _ in range(random.randrange(3))]
        return {legal(key): value(type_.value, texts, random) for key in keys}
    return random.choice(texts)


def legal(found: Any) -> Any:
    """XML cannot hold every character: another stands in its place."""
    if isinstance(found, str):
        return ILLEGAL.sub("\ufffd", found)
    if isinstance(found, list):
        return [legal(item) for item in found]
    if isinstance(found, dict):
        return {key: legal(item) for key, item in found.items()}
    return found


def row(table: Table, number: int, texts: list[str], random: Random) -> SnapshotRow:
    fields = {
        column.field.name: value(column.field.type, texts, random)
        for column in table.columns.values()
        if column.field is not None and not column.derived
    }
    if "uuid" in fields:
        fields["uuid"] = f"{table.name}-{number}"
    return SnapshotRow(cls=table.name, ref=f"OpaqueRef:{table.name}{number}", created=3, modified=5, fields=fields)


def store_of(rows: list[SnapshotRow]) -> Store:
    store = Store()
    store.load(rows, generation=77, term=1)
    return store


def document(store: Store) -> bytes:
    return b"".join(pieces(moment(store)))


def parsed(data: bytes, size: int = 1000) -> Dump:
    reader = Reader()
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
    return reader.close()


@settings(max_examples=8, deadline=None)
@given(TEXTS, st.integers(0, 2**32), st.integers(1, 4000))
def test_rows_of_every_class_come_back_as_they_were(texts: list[str], seed: int, size: int) -> None:
    random = Random(seed)
    persistent = [table for table in TABLES.values() if table.persistent]
    rows = [row(table, number, texts, random) for table in persistent for number in range(2)]
    store = store_of(rows)
    dump = parsed(document(store), size)
    assert (dump.schema, dump.generation, dump.unknown) == (SCHEMA_VERSION, 77, {})
    found = {item.ref: item for item in dump.rows}
    assert set(found) == {item.ref for item in rows}
    for item in store.snapshot():
        back = found[item.ref]
        assert (back.cls, back.created, back.modified) == (item.cls, 3, 5)
        for column in TABLES[item.cls].columns.values():
            if column.field is None or column.derived:
                continue
            name = column.field.name
            if column.volatile:
                assert back.fields[name] == column.field.type.empty()
            elif column.removed:
                assert back.fields[name] == column.field.initial()
            else:
                assert back.fields[name] == legal(item.fields[name]), name
        assert set(back.fields) == set(item.fields)


def test_lists_are_rebuilt_from_the_references_that_make_them() -> None:
    vm = SnapshotRow(cls="VM", ref="OpaqueRef:vm", created=1, modified=2, fields={"uuid": "vm"})
    vbds = [
        SnapshotRow(cls="VBD", ref=ref, created=1, modified=2, fields={"uuid": ref, "VM": vm.ref}) for ref in ("b", "a")
    ]
    dump = parsed(document(store_of([vm, *vbds])))
    assert "VBDs" not in next(row for row in dump.rows if row.cls == "VM").fields
    assert sorted(store_of(dump.rows).get("VM", vm.ref, "VBDs")) == ["a", "b"]


def test_a_dump_is_of_one_moment_whatever_changes_while_it_is_written() -> None:
    store = store_of([row(TABLES["network"], n, ["x"], Random(1)) for n in range(3)])
    before = document(store)
    taken = pieces(moment(store))
    ref = "OpaqueRef:network0"
    changes: list[RowChange] = [
        RowModified(cls="network", ref=ref, fields={"name_label": "changed"}),
        RowDeleted(cls="network", ref="OpaqueRef:network1"),
    ]
    store.apply(Delta(term=1, generation=78, previous=77, changes=changes))
    assert b"".join(taken) == before
    assert document(store) != before


def test_pieces_are_small() -> None:
    store = store_of([row(TABLES["VM"], n, ["x"], Random(n)) for n in range(300)])
    lengths = [len(piece) for piece in pieces(moment(store))]
    assert len(lengths) > 10
    assert max(lengths) < 64 * 1024
