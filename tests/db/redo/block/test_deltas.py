"""Row changes as the original's redo log says them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.db import RowChange, RowCreated, RowDeleted, RowModified
from shared.redo_blocks import deltas
from shared.redo_blocks.deltas import CreateRow, DeleteRow, Malformed, WriteField

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def test_a_delta_is_a_word_and_texts_with_their_lengths_in_bytes() -> None:
    assert deltas.encode(DeleteRow("VM", "OpaqueRef:1")) == b"DeleteRow00000002VM00000011OpaqueRef:1"
    assert (
        deltas.encode(WriteField("VM", "r", "name__label", "é 'x'"))
        == b"WriteFiel00000002VM00000001r00000011name__label00000006" + "é 'x'".encode()
    )
    assert (
        deltas.encode(CreateRow("VM", "r", (("tags", "()"), ("uuid", "u"))))
        == b"CreateRow00000002VM00000001r0000000200000004tags00000002()00000004uuid00000001u"
    )


@given(TEXT, TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_what_was_encoded_is_decoded(table: str, ref: str, columns: list[tuple[str, str]]) -> None:
    for delta in (CreateRow(table, ref, tuple(columns)), DeleteRow(table, ref), WriteField(table, ref, ref, table)):
        assert deltas.decode(deltas.encode(delta)) == delta


@given(st.binary(max_size=60))
def test_other_bytes_are_malformed(data: bytes) -> None:
    for kind in (b"", b"CreateRow", b"DeleteRow", b"WriteFiel"):
        try:
            deltas.decode(kind + data)
        except Malformed:
            continue


@pytest.mark.parametrize(
    "data", [b"", b"CreateTab00000002VM", b"DeleteRow00000009VM", b"DeleteRow0000000xVM", b"DeleteRow00000002\xff\xfe"]
)
def test_what_is_cut_or_no_text_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        deltas.decode(data)


def test_a_new_row_has_all_columns_of_its_table_and_its_reference() -> None:
    [delta] = deltas.of_changes([RowCreated(cls="VM", ref="r", fields={"name_label": "a", "tags": ["x", "y'z"]})])
    assert isinstance(delta, CreateRow)
    columns = dict(delta.columns)
    assert list(columns) == sorted(columns)
    assert columns["_ref"] == "r"
    assert columns["name__label"] == "a"
    assert columns["tags"] == r"('x' 'y\'z')"
    assert columns["VBDs"] == "()"  # follows from the VBDs
    assert columns["HVM__shadow_multiplier"] == "1"
    assert columns["snapshot_time"] == "19700101T00:00:00Z"


def test_each_field_is_a_delta_of_its_own_and_counts_as_a_generation() -> None:
    changes: list[RowChange] = [
        RowModified(cls="VM", ref="r", fields={"name_label": "a", "tags": ["x"], "allowed_operations": ["start"]}),
        RowDeleted(cls="VM", ref="r"),
    ]
    assert list(deltas.of_changes(changes)) == [
        WriteField("VM", "r", "name__label", "a"),
        WriteField("VM", "r", "tags", "('x')"),
        DeleteRow("VM", "r"),
    ]
    assert deltas.generations(changes) == 3


def test_what_is_volatile_is_no_delta_and_takes_one_generation_all_the_same() -> None:
    changes: list[RowChange] = [
        RowCreated(cls="session", ref="s", fields={}),
        RowModified(cls="VM", ref="r", fields={"current_operations": {"t": "start"}}),
        RowModified(cls="VM", ref="r", fields={}),
        RowDeleted(cls="task", ref="t"),
    ]
    assert list(deltas.of_changes(changes)) == []
    assert deltas.generations(changes) == 1


def test_text_that_xml_cannot_hold_is_replaced_as_in_a_dump() -> None:
    [delta] = deltas.of_changes([RowModified(cls="VM", ref="r", fields={"name_label": "a\x00\ud800\tb\n"})])
    assert delta == WriteField("VM", "r", "name__label", "a\ufffd\ufffd\tb\n")


def test_changes_come_back_with_what_persists() -> None:
    changes: list[RowChange] = [
        RowCreated(cls="VM", ref="r", fields={"name_label": "a", "platform": {"k": "v"}, "memory_static_max": 2**40}),
        RowModified(cls="VM", ref="r", fields={"name_label": "b", "is_a_template": True}),
        RowModified(cls="VM", ref="q", fields={"name_label": "c"}),
        RowDeleted(cls="VM", ref="r"),
    ]
    created, *others = deltas.to_changes(list(deltas.of_changes(changes)))
    assert isinstance(created, RowCreated)
    assert {name: created.fields[name] for name in ("name_label", "platform", "memory_static_max")} == {
        "name_label": "a",
        "platform": {"k": "v"},
        "memory_static_max": 2**40,
    }
    assert created.fields["allowed_operations"] == []
    assert others == changes[1:]


def test_tables_and_columns_that_nobody_knows_are_left_out() -> None:
    assert deltas.to_changes(
        [
            WriteField("VM", "r", "of_a_later_version", "x"),
            WriteField("VM", "r", "VBDs", "('y')"),
            DeleteRow("of_a_later_version", "r"),
            DeleteRow("session", "r"),
            CreateRow("network", "n", (("name__label", "a"), ("of_a_later_version", "z"))),
        ]
    ) == [RowCreated(cls="network", ref="n", fields=_created("a"))]


def _created(name: str) -> dict[str, object]:
    return {"name_label": name, "allowed_operations": [], "current_operations": {}}


def test_a_value_that_is_none_of_its_columns_type_is_malformed() -> None:
    with pytest.raises(Malformed, match="memory__static_max"):
        deltas.to_change(WriteField("VM", "r", "memory__static_max", "much"))
