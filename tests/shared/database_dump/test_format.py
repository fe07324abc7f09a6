"""The bytes of a dump, and how documents of other writers, old or damaged, are read."""

from __future__ import annotations

import re

import pytest

from shared.contracts.db import SnapshotRow
from shared.database_dump.reader import LARGEST_ELEMENT, Dump, DumpError
from shared.database_dump.schema import TABLES
from shared.database_dump.writer import moment, pieces
from shared.store import NULL, Store
from tests.shared.database_dump.test_round_trip import document, parsed, store_of

MANIFEST = (
    '<manifest><pair key="schema_major_vsn" value="5"/><pair key="schema_minor_vsn" value="35"/>'
    '<pair key="generation_count" value="103"/></manifest>'
)

NETWORK = 'bridge="" other_config="()"'
"""What every network says of itself, since there are networks."""


def network(ref: str = "OpaqueRef:n", **fields: object) -> SnapshotRow:
    return SnapshotRow(cls="network", ref=ref, created=3, modified=5, fields={"uuid": ref, **fields})


def database(tables: str, manifest: str = MANIFEST) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<database>{manifest}{tables}</database>'.encode()


def read(tables: str, manifest: str = MANIFEST) -> Dump:
    return parsed(database(tables, manifest))


def refused(data: bytes) -> str:
    with pytest.raises(DumpError) as error:
        parsed(data)
    return str(error.value)


# ---- writing


def test_it_begins_with_the_declaration_and_the_manifest() -> None:
    assert document(store_of([])).startswith(
        b'<?xml version="1.0" encoding="UTF-8"?>\n<database><manifest><pair key="schema_major_vsn" value="5"/>'
        b'<pair key="schema_minor_vsn" value="909"/><pair key="generation_count" value="77"/></manifest>'
        b'<table name="Bond"/><table name="Caller"/>'
    )


def test_all_tables_are_there_in_the_order_of_their_bytes() -> None:
    names = re.findall(r'<table name="(\w+)"/>', document(store_of([])).decode())
    assert names == sorted(names, key=str.encode) == list(TABLES)
    assert {"session", "task", "event", "message", "data_source", "sr_stat"} < set(names)
    assert len(names) == 71


def test_a_row_has_its_reference_its_times_and_all_columns() -> None:
    text = document(store_of([network(name_label="a  b", MTU=1500)])).decode()
    [row] = re.findall(r"<row .*?/>", text)
    assert row.startswith('<row ref="OpaqueRef:n" __ctime="3" __mtime="5" MTU="1500" PIFs="()" VIFs="()" _ref="')
    assert ' name__label="a%.%.b" ' in row
    assert re.findall(r' (\w+)="', row)[3:] == list(TABLES["network"].columns)


@pytest.mark.parametrize(
    ("held", "written"),
    [
        ("b c", "b%.c"),
        ("\t\n\r%", "%t%n%r%%"),
        ("%.", "%%."),
        ("<>&\"'", "&lt;&gt;&amp;&quot;'"),
        ("\x01\x1f", "\ufffd\ufffd"),
        ("é😀", "é😀"),
    ],
)
def test_blanks_are_guarded_and_signs_escaped(held: str, written: str) -> None:
    assert f' name__description="{written}" '.encode() in document(store_of([network(name_description=held)]))


def test_sets_and_maps_are_s_expressions() -> None:
    text = document(store_of([network(other_config={"a": "b c", "it's": "\\"}, tags=["x", "y"])])).decode()
    assert " other_config=\"(('a'%.'b%.c')%.('it\\'s'%.'\\\\'))\" " in text
    assert " tags=\"('x'%.'y')\" " in text


def test_sessions_and_tasks_are_left_out() -> None:
    store = store_of([SnapshotRow(cls="session", ref="OpaqueRef:s", created=1, modified=1, fields={"uuid": "s"})])
    assert b'<table name="session"/>' in document(store)


def test_rows_are_in_the_order_of_their_references() -> None:
    text = document(store_of([network("OpaqueRef:b"), network("OpaqueRef:a"), network("OpaqueRef:B")])).decode()
    assert re.findall(r'<row ref="([^"]*)"', text) == ["OpaqueRef:B", "OpaqueRef:a", "OpaqueRef:b"]


# ---- reading


def test_what_an_old_database_does_not_have_gets_defaults() -> None:
    dump = read(f'<table name="network"><row ref="OpaqueRef:n" uuid="u" {NETWORK}/></table>')
    [row] = dump.rows
    assert (dump.schema, dump.generation, row.created, row.modified) == ((5, 35), 103, 0, 0)
    assert (row.fields["MTU"], row.fields["managed"]) == (1500, True)


def test_old_guards_and_other_writers_texts_are_read() -> None:
    [row] = read(
        "<table name=\"network\"><row ref='OpaqueRef:n' uuid='u' name__label='a%_b%x%' bridge=''"
        " other_config='(;c&#10;(&quot;k&quot;  &apos;v&apos;))' tags='()'/></table>"
    ).rows
    assert row.fields["name_label"] == "a  b%x%"
    assert row.fields["other_config"] == {"k": "v"}


@pytest.mark.parametrize("number", ["nan", "-inf", "inf"])
def test_a_number_that_is_none_is_its_default(number: str) -> None:
    vms = [
        SnapshotRow(cls="VM", ref=ref, created=1, modified=1, fields={"uuid": ref, "HVM_shadow_multiplier": value})
        for ref, value in (("a", 4.0), ("b", 5.0), ("c", 4.0))
    ]
    text = document(store_of(vms)).replace(b'shadow_multiplier="4"', f'shadow_multiplier="{number}"'.encode())
    assert [row.fields["HVM_shadow_multiplier"] for row in parsed(text).rows] == [1.0, 5.0, 1.0]


def test_what_nobody_knows_is_left_out_and_counted() -> None:
    dump = read(
        '<table name="network"><row ref="OpaqueRef:n" uuid="u" bridge="" other_config="()" news="1"/></table>'
        '<table name="future"><row ref="OpaqueRef:f" a="1"/></table><table name="later"/>'
    )
    assert [row.ref for row in dump.rows] == ["OpaqueRef:n"]
    assert dump.unknown == {"network.news": 1, "future": 1, "later": 0}


def test_lists_that_follow_from_references_are_not_taken_and_volatile_values_neither() -> None:
    dump = read(
        '<table name="network"><row ref="OpaqueRef:n" uuid="u" bridge="" other_config="()" VIFs="(\'OpaqueRef:gone\')"'
        ' allowed_operations="(\'attaching\')" current_operations="garbage"/></table>'
        '<table name="PIF"/><table name="session"><row ref="OpaqueRef:s" uuid="s"/></table>'
    )
    store = Store()
    store.load(dump.rows, 1, 1)
    row = store.row("network", "OpaqueRef:n")
    assert row is not None
    assert (row["VIFs"], row["allowed_operations"], row["current_operations"]) == ([], [], {})
    assert not store.rows("session")


def test_an_unset_reference_stays_unset_and_a_missing_one_is_null() -> None:
    store = store_of([SnapshotRow(cls="VM", ref="OpaqueRef:v", created=1, modified=1, fields={"uuid": "v"})])
    text = document(store).decode()
    fields = parsed(text.replace(' parent="OpaqueRef:NULL"', ' parent=""').encode()).rows[0].fields
    assert (fields["parent"], fields["affinity"]) == ("", NULL)


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ('<table name="network"><row uuid="u"/></table>', "without ref"),
        ('<table name="network"><row ref="n" uuid="u" bridge="" MTU="many"/></table>', "row n, MTU"),
        ('<table name="network"><row ref="n" uuid="u" bridge="" tags="(a)"/></table>', "row n, tags"),
        ('<table name="network"><row ref="n" uuid="u" bridge="" managed="True"/></table>', "row n, managed"),
        (f'<table name="network"><row ref="n" {NETWORK}/></table>', "no uuid"),
        ('<table name="network"><row ref="n" __ctime="x" uuid="u"/></table>', "__ctime"),
        ('<table name="network"><row ref="n" ref="m" uuid="u"/></table>', "duplicate attribute"),
        (
            f'<table name="network"><row ref="n" uuid="u" {NETWORK}/><row ref="n" uuid="v" {NETWORK}/></table>',
            "row n: the reference",
        ),
        (
            f'<table name="network"><row ref="n" uuid="u" {NETWORK}/><row ref="m" uuid="u" {NETWORK}/></table>',
            "uuid u is that of n",
        ),
        ('<table name="network" other="x"/>', "one attribute"),
        ('<row ref="n"/>', "'row' in 'database'"),
        ("<surprise/>", "'surprise'"),
        ('<table name="network"><row ref="&nbsp;"/></table>', "undefined entity"),
        ('<table name="network">', "mismatched tag"),
    ],
)
def test_damage_is_told_with_its_place(tables: str, why: str) -> None:
    text = refused(database(tables))
    assert text.startswith("line 2, column ")
    assert why in text


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ("<manifest/>", "no schema_major_vsn"),
        (MANIFEST.replace('"103"', '"-1"'), "generation_count"),
        (MANIFEST.replace('"103"', '"9223372036854775807"'), "generation_count"),
        (MANIFEST.replace('key="generation_count" value="103"', 'value="103" key="generation_count"'), "in this order"),
    ],
)
def test_a_manifest_must_be_whole(manifest: str, why: str) -> None:
    assert why in refused(database("", manifest))


def test_a_document_that_ends_early_is_refused() -> None:
    whole = document(store_of([network()]))
    for length in (0, 10, 100, len(whole) // 2, len(whole) - 1):
        assert refused(whole[:length]).startswith("line ")


def test_entities_are_never_expanded() -> None:
    bomb = b'<?xml version="1.0"?><!DOCTYPE database [<!ENTITY a "aaaa"><!ENTITY b SYSTEM "file:///etc/passwd">]>'
    assert "document type declaration" in refused(bomb + b"<database>&a;&b;</database>")


def test_an_element_without_end_is_not_kept_for_ever() -> None:
    with pytest.raises(DumpError, match="more than"):
        parsed(b'<database><table name="network"><row ref="' + b"x" * LARGEST_ELEMENT + b"xx", 1024 * 1024)


def test_writing_needs_no_more_than_a_piece_at_a_time() -> None:
    taken = pieces(moment(store_of([network(f"OpaqueRef:{n}") for n in range(2000)])))
    assert len(next(taken)) < 64 * 1024
