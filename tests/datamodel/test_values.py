"""Checking values from outside, and the database's text."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.datamodel import model
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    STRING,
    STRING_MAP,
    STRING_SET,
    EnumType,
    MapType,
    RefType,
    Scalar,
    SetType,
    Type,
)
from shared.datamodel.values import check, from_text, to_text
from shared.errors import ApiError

COLOUR = EnumType("colour", ("Red", "Blue"))

datetimes = st.datetimes().map(lambda t: f"{t.year:04}{t:%m%dT%H:%M:%SZ}")


def plain(type: Type) -> st.SearchStrategy[Any]:
    """Plain values of a type that the database can keep."""
    match type:
        case SetType():
            return st.lists(plain(type.of), max_size=4)
        case MapType():
            return st.dictionaries(keys(type.key), plain(type.value), max_size=4)
        case EnumType():
            return st.sampled_from(type.values)
        case RefType():
            return st.uuids().map(lambda uuid: f"OpaqueRef:{uuid}")
    assert isinstance(type, Scalar)
    return {
        STRING: st.text(),
        INT: st.integers(-(2**63), 2**63 - 1),
        FLOAT: st.floats(allow_nan=False),
        BOOL: st.booleans(),
        DATETIME: datetimes,
    }[type]


def keys(type: Type) -> st.SearchStrategy[str]:
    return plain(type).map(lambda value: to_text(type, value))


scalars = st.sampled_from([STRING, INT, FLOAT, BOOL, DATETIME, COLOUR, RefType("VM")])
types = st.recursive(
    scalars,
    lambda inner: inner.map(SetType) | st.builds(MapType, st.sampled_from([STRING, INT, COLOUR, RefType("VM")]), inner),
    max_leaves=4,
)


@given(st.data(), types)
def test_what_is_written_is_read_back(data: st.DataObject, type: Type) -> None:
    value = data.draw(plain(type))
    assert from_text(type, to_text(type, value)) == value


@given(st.data(), types)
def test_a_plain_value_passes_the_check_unchanged(data: st.DataObject, type: Type) -> None:
    value = data.draw(plain(type))
    assert check(type, value) == value


@given(st.text())
def test_text_that_is_no_set_is_refused_rather_than_misread(text: str) -> None:
    try:
        value = from_text(STRING_SET, text)
    except ApiError as refused:
        error: str | None = refused.code
        value = []
    else:
        error = None
    assert error in (None, "INTERNAL_ERROR")
    assert from_text(STRING_SET, to_text(STRING_SET, value)) == value


@pytest.mark.parametrize(
    ("type", "value", "text"),
    [
        (STRING_SET, [], "()"),
        (STRING_SET, ["a", "it's", "b\\c", 'd"e'], r"""('a' 'it\'s' 'b\\c' 'd"e')"""),
        (STRING_MAP, {"a": "b c", "k": ""}, "(('a' 'b c') ('k' ''))"),
        (MapType(INT, STRING_SET), {"0": ["x"]}, r"(('0' '(\'x\')'))"),
        (FLOAT, 0.1, "0.100000000000000006"),
        (FLOAT, 3.0, "3"),
        (BOOL, True, "true"),
        (INT, -7, "-7"),
        (RefType("VM"), "OpaqueRef:NULL", "OpaqueRef:NULL"),
    ],
)
def test_the_database_text_is_the_one_other_programs_write(type: Type, value: Any, text: str) -> None:
    assert to_text(type, value) == text
    assert from_text(type, text) == value


@pytest.mark.parametrize(
    ("type", "text", "value"),
    [
        (STRING_SET, ' ( "a"\t\'b\' ; a remark (\n "c\\n" ) ', ["a", "b", "cn"]),
        (STRING_MAP, "((\"k\" 'v'));", {"k": "v"}),
        (FLOAT, "0.", 0.0),
        (FLOAT, "-1.", -1.0),
        (DATETIME, "2025-01-02T03:04:05", "20250102T03:04:05Z"),
    ],
)
def test_forms_of_other_writers_are_read(type: Type, text: str, value: Any) -> None:
    assert from_text(type, text) == value


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (STRING_SET, ""),
        (STRING_SET, "(a)"),
        (STRING_SET, "('a'"),
        (STRING_SET, "'a')"),
        (STRING_SET, "(('a'))"),
        (STRING_SET, "('a') 'b'"),
        (STRING_MAP, "('a' 'b')"),
        (STRING_MAP, "(('a'))"),
        (STRING_MAP, "(('a' 'b' 'c'))"),
        (BOOL, "True"),
        (INT, "x"),
        (DATETIME, "yesterday"),
    ],
)
def test_malformed_text_is_an_internal_error(type: Type, text: str) -> None:
    with pytest.raises(ApiError, match="INTERNAL_ERROR"):
        from_text(type, text)


@pytest.mark.parametrize(
    ("type", "value", "plain"),
    [
        (INT, "42", 42),
        (INT, "007", 7),
        (INT, "-0x10", -16),
        (INT, "0b11", 3),
        (INT, "0o17", 15),
        (INT, str(2**63 - 1), 2**63 - 1),
        (FLOAT, 3, 3.0),
        (FLOAT, "1e3", 1000.0),
        (FLOAT, "inf", math.inf),
        (COLOUR, "rED", "Red"),
        (SetType(COLOUR), ["blue"], ["Blue"]),
        (MapType(STRING, COLOUR), {"k": "BLUE"}, {"k": "Blue"}),
        (MapType(INT, INT), {1: "2", "0x2": 3}, {"1": 2, "2": 3}),
        (DATETIME, "20250102T03:04:05Z", "20250102T03:04:05Z"),
        (DATETIME, "2025-01-02 03:04:05.75Z", "20250102T03:04:05Z"),
        (DATETIME, "20250102T03:04:05+01:30", "20250102T01:34:05Z"),
        (RefType("VM"), "anything", "anything"),
    ],
)
def test_tolerated_forms_become_plain(type: Type, value: Any, plain: Any) -> None:
    checked = check(type, value)
    assert checked == plain
    assert isinstance(checked, plain.__class__)


@pytest.mark.parametrize(
    ("type", "value"),
    [
        (INT, True),
        (INT, 7.0),
        (INT, "seven"),
        (INT, ""),
        (INT, 2**63),
        (FLOAT, True),
        (FLOAT, "1_0"),
        (BOOL, 1),
        (BOOL, "true"),
        (STRING, 1),
        (STRING, None),
        (STRING_SET, "a"),
        (STRING_MAP, []),
        (STRING_MAP, {"k": 1}),
        (COLOUR, "green"),
        (DATETIME, "20250102"),
        (DATETIME, "20250102T03:04:05.5Z"),
        (DATETIME, "20250229T00:00:00Z"),
        (DATETIME, "20250102T03:04Z"),
        (DATETIME, "20250102T03:04:05Z "),
        (DATETIME, "00010101T00:00:00+10:00"),
    ],
)
def test_values_of_another_type_are_an_internal_error(type: Type, value: Any) -> None:
    with pytest.raises(ApiError) as raised:
        check(type, value)
    assert raised.value.code == "INTERNAL_ERROR"


def test_errors_say_what_was_wanted_and_what_came() -> None:
    with pytest.raises(ApiError) as raised:
        check(BOOL, "true")
    assert raised.value.params == ["Failure(\"Expected bool, got 'S(true)'\")"]


def test_bond_modes_and_event_operations_are_matched_exactly() -> None:
    for name, word in (("bond_mode", "Balance-SLB"), ("event_operation", "ADD")):
        enum = model.enums[name]
        with pytest.raises(ApiError, match="Unknown tag"):
            check(enum, word)
        assert check(enum, word.lower()) == word.lower()


def test_a_checked_container_is_a_copy() -> None:
    given_set: list[str] = ["a"]
    assert check(STRING_SET, given_set) is not given_set


def test_every_default_is_a_value_of_its_type() -> None:
    for cls in model.classes.values():
        if not cls.in_database:
            continue  # their records are made whole, and may hold options and other records
        for field in cls.fields.values():
            assert check(field.type, field.initial()) == field.initial(), f"{cls.name}.{field.name}"
            assert from_text(field.type, to_text(field.type, field.initial())) == field.initial()
