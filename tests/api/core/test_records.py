"""Records as they are kept and joined: always what a fresh encoding of the rows gives, of one state of the rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from functools import cache
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api import records
from services.api.wire.codec import Codec, record_fields
from services.api.wire.jsonrpc import JSON
from services.api.wire.xmlrpc import XML
from shared.contracts.db import Delta, RowChange, RowCreated, RowDeleted, RowModified
from shared.datamodel import model
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    EnumType,
    MapType,
    OptionType,
    RecordType,
    RefType,
    SetType,
    Type,
)
from shared.store import NULL, Store, Touched

CODECS: tuple[Codec, ...] = (JSON, XML)
CLASSES = ("VM", "VBD", "VM_metrics", "VM_guest_metrics", "task", "host", "PIF_metrics")
REFS = [f"OpaqueRef:{number}" for number in range(4)]

texts = st.one_of(
    st.sampled_from(["", "a", "b & c", '<x y="z">', "é\ud800", "\x00\x1f\t\n\uffff", "] ]>"]), st.text(max_size=6)
)


@cache
def values(type_: Type) -> st.SearchStrategy[Any]:
    """Any value of a field of that type."""
    match type_:
        case RefType():
            return st.sampled_from([*REFS, NULL, "<odd>"])
        case EnumType():
            return st.sampled_from(type_.values)
        case SetType():
            return st.lists(values(type_.of), max_size=3)
        case MapType():
            return st.dictionaries(
                texts if type_.key not in (INT,) else st.sampled_from("123"), values(type_.value), max_size=3
            )
        case OptionType():
            return st.one_of(st.none(), values(type_.of))
    numbers = {
        INT: st.sampled_from([0, 1, -1, 300, 2**62]),
        FLOAT: st.sampled_from([0.0, -0.0, 1.0, 0.1, float("nan")]),
    }
    if type_ in numbers:
        return numbers[type_]
    return st.booleans() if type_ == BOOL else st.just("20250102T03:04:05Z") if type_ == DATETIME else texts


def fresh(codec: Codec, cls: str, fields: Mapping[str, Any]) -> bytes:
    """The record, member by member."""
    types = record_fields(RecordType(cls))
    return codec.record([codec.member_encoder(name, type_)(fields[name]) for name, type_ in types.items()])


def apply(store: Store, *changes: RowChange) -> list[Touched]:
    generation = store.generation
    return store.apply(Delta(term=1, generation=generation + 1, previous=generation, changes=list(changes)))


def writes(cls: str) -> st.SearchStrategy[RowChange]:
    stored = {name: field.type for name, field in model.classes[cls].fields.items() if field.maintained_from is None}
    fields = st.lists(
        st.sampled_from(sorted(stored)).flatmap(lambda name: st.tuples(st.just(name), values(stored[name]))), max_size=6
    ).map(dict)
    ref = st.sampled_from(REFS)
    return st.one_of(
        st.builds(RowCreated, cls=st.just(cls), ref=ref, fields=fields),
        st.builds(RowModified, cls=st.just(cls), ref=ref, fields=fields),
        st.builds(RowModified, cls=st.just(cls), ref=ref, fields=fields),
        st.builds(RowDeleted, cls=st.just(cls), ref=ref),
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of([writes(cls) for cls in CLASSES]), min_size=1, max_size=12))
def test_a_kept_record_is_what_a_fresh_encoding_gives(written: list[RowChange]) -> None:
    store = Store()
    for change in written:
        if isinstance(change, RowCreated) and change.ref in store.by_ref:
            continue
        for item in apply(store, change):
            for codec in CODECS:
                assert records.row_fragment(codec, item.cls, item.row) == fresh(codec, item.cls, item.row.fields)
    for cls in CLASSES:
        for row in store.tables[cls].rows.values():
            for codec in CODECS:
                assert records.row_fragment(codec, cls, row) == fresh(codec, cls, row.fields)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_every_class_has_records(codec: Codec) -> None:
    store = Store()
    for cls in store.tables:
        apply(store, RowCreated(cls=cls, ref=f"OpaqueRef:{cls}", fields={}))
        [row] = store.tables[cls].rows.values()
        assert records.row_fragment(codec, cls, row) == fresh(codec, cls, row.fields)


def test_a_value_that_cannot_be_written_does_not_stay_in_other_records() -> None:
    store = many(2)
    first, second = (row.fields for row in store.tables["VM"].rows.values())
    odd = {**first, "name_label": "odd", "VCPUs_max": "not a number", "tags": ["odd"]}
    for codec in CODECS:
        encode = codec.row_encoder("VM")
        encode(first)
        with contextlib.suppress(ValueError):
            encode(odd)
        assert encode(second) == fresh(codec, "VM", second)


@settings(max_examples=30, deadline=None)
@given(st.lists(texts, max_size=5, unique=True))
def test_the_pieces_of_a_map_are_the_map(names: list[str]) -> None:
    for codec in CODECS:
        fragments = [codec.native_int(number) for number in range(len(names))]
        whole = codec.record([codec.member(name, part) for name, part in zip(names, fragments, strict=True)])
        assert b"".join(codec.map_pieces(names, fragments)) == whole


def many(count: int) -> Store:
    store = Store()
    apply(store, *[RowCreated(cls="VM", ref=f"r{n}", fields={"name_label": f"n{n}"}) for n in range(count)])
    return store


async def joined(found: records.Encoded | Coroutine[Any, Any, records.Encoded]) -> bytes:
    encoded = found if isinstance(found, bytes | list) else await found
    return encoded if isinstance(encoded, bytes) else b"".join(encoded)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("count", [0, 1, records.FEW, records.FEW + 1, 300])
async def test_a_map_of_records_is_complete_however_many_there_are(codec: Codec, count: int) -> None:
    store = many(count)
    whole = codec.record(
        [codec.member(ref, fresh(codec, "VM", row.fields)) for ref, row in store.tables["VM"].rows.items()]
    )
    for _ in range(2):  # nothing encoded yet, everything encoded
        assert await joined(records.record_map(codec, "VM", store.tables["VM"].rows)) == whole


async def test_a_call_sees_the_rows_as_they_were_when_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "TURN", -1.0)  # others get their turn all the time
    store = many(400)
    rows = store.tables["VM"].rows
    names = {ref: row.fields["name_label"] for ref, row in rows.items()}
    records.row_fragment(JSON, "VM", rows["r0"])
    work = records.record_map(JSON, "VM", rows)
    apply(store, RowModified(cls="VM", ref="r0", fields={"name_label": "new"}))
    calling = asyncio.create_task(joined(work))
    for number in range(10):
        await asyncio.sleep(0)
        apply(
            store,
            RowModified(cls="VM", ref=f"r{399 - number}", fields={"name_label": "new"}),
            RowDeleted(cls="VM", ref=f"r{200 + number}"),
            RowCreated(cls="VM", ref=f"x{number}", fields={}),
        )
    assert not calling.done()
    found = orjson.loads(await calling)
    assert {ref: record["name_label"] for ref, record in found.items()} == names
    later = orjson.loads(await joined(records.record_map(JSON, "VM", rows)))
    assert later["r399"]["name_label"] == "new"
