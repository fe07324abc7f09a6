import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.wire import jsonrpc as wire
from services.api.wire.raw import Malformed, RawParams
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    STRING,
    STRING_MAP,
    VOID,
    OptionType,
    RecordType,
    SetType,
    Type,
)
from shared.errors import ApiError


def call(**members: Any) -> bytes:
    return json.dumps({"method": "VM.get_all", "params": ["s"], "id": 1} | members).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'"x"',
        b"[]",
        b"[" + call(jsonrpc="2.0") + b"]",
        b"{'method':'VM.get_all'}",
        b'{"method": "VM.get_all", "params": []}',
        b'{"params": [], "id": 1}',
        call(id=None),
        call(id=True),
        call(id=2.5),
        call(id=[1]),
        call(method=5),
        call(params=None),
        call(params={"session_id": "s"}),
        call(params="x"),
        call(jsonrpc="2.0", params="x"),
        call(jsonrpc="1.0"),
        call(jsonrpc=2.0),
        call(jsonrpc=None),
        call() + b" x",
        b'{"method":"m","params":[nan],"id":1}',
        b'{"method":"m","params":["\\x41"],"id":1}',
        b'{"method":"m","params":[01],"id":1}',
        call() + b"/* open",
        b'{"method":"m","params":["\\ud83d"],"id":1}',
        b'{"method":"\xff","params":[],"id":1}',
        b'{"method":"m","params":' + b"[" * 5000 + b"]" * 5000 + b',"id":1}',
    ],
)
def test_what_is_not_a_call_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        wire.parse(body)


@pytest.mark.parametrize(
    ("body", "params"),
    [
        (call(), ["s"]),
        (call(id="a"), ["s"]),
        (call(id=-1), ["s"]),
        (call(jsonrpc="2.0"), ["s"]),
        (call(jsonrpc="2.0", params=None), []),
        (b'{"jsonrpc":"2.0","method":"VM.get_all","id":1}', []),
        (call(jsonrpc="2.0", params={"session_id": "s"}), [{"session_id": "s"}]),
        (b"  " + call() + b" \n", ["s"]),
        (b"/*c*/" + call(), ["s"]),
        (call(params=["/* not a comment */"]), ["/* not a comment */"]),
        (b"/* c */" + call(params=["/* not a comment */", '"']), ["/* not a comment */", '"']),
        (call(params=['looks like a "member": here']), ['looks like a "member": here']),
        (call(params=["a\x00b", "\U0001f600"]), ["a\x00b", "\U0001f600"]),
        (b'{"method":"m","params":["first"],"params":["second"],"id":1}', ["first"]),
        (b'{"method":"m","params":[{"a":1,"a":2}],"id":1}', [{"a": 1}]),
        (b"// c\n" + call(params=["// not a comment"]) + b"// c", ["// not a comment"]),
        (b'{method:"m",params :[{b_1:"a:b","c d":2}],id:1}', [{"b_1": "a:b", "c d": 2}]),
        (b'{"method":"m","params":["a\tb\nc"],"id":1}', ["a\tb\nc"]),
        (b'{"method":"m","params":[Infinity,-Infinity],"id":1}', [math.inf, -math.inf]),
        (call(params=[2**63 - 1, -(2**63)]), [2**63 - 1, -(2**63)]),
    ],
)
def test_what_the_original_tolerates_is_accepted(body: bytes, params: list[Any]) -> None:
    assert wire.parse(body).params == params


def test_text_that_is_not_utf8_is_reported_before_anything_else() -> None:
    with pytest.raises(wire.InvalidText) as found:
        wire.parse(b'{"method":"m","params":["ok","a\xffb"],"id":7}')
    assert found.value.description == ["INVALID_VALUE", "Invalid UTF-8 string in parameter", "a\ufffdb"]
    with pytest.raises(wire.InvalidText):
        wire.parse(b'{"method":"m","params":["\\udc00"],"id":7}')
    reply = json.loads(found.value.call.early_failure(found.value.description))
    assert reply == {"jsonrpc": "2.0", "error": found.value.description, "id": 0}


@pytest.mark.parametrize(
    ("version", "success", "failure"),
    [
        ({}, {"result": 4, "error": None, "id": "i"}, {"result": None, "error": ["CODE", "p"], "id": "i"}),
        (
            {"jsonrpc": "2.0"},
            {"jsonrpc": "2.0", "result": 4, "id": "i"},
            {"jsonrpc": "2.0", "error": {"code": 1, "message": "CODE", "data": ["p"]}, "id": "i"},
        ),
    ],
)
def test_each_version_has_its_envelopes(version: Any, success: Any, failure: Any) -> None:
    parsed = wire.parse(call(id="i", **version))
    assert json.loads(parsed.success(wire.encode(INT, 4))) == success
    assert json.loads(parsed.failure(["CODE", "p"])) == failure
    assert list(json.loads(parsed.success(b"4"))) == list(success)


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        (INT, 2**63 - 1, "9223372036854775807"),
        (FLOAT, 2.0, "2.0"),
        (FLOAT, 2, "2.0"),
        (FLOAT, math.nan, "null"),
        (BOOL, True, "true"),
        (DATETIME, "19700101T00:00:00Z", '"19700101T00:00:00Z"'),
        (VOID, "", '""'),
        (SetType(STRING), [], "[]"),
        (STRING_MAP, {}, "{}"),
        (STRING, "\ud800x", '"?x"'),
    ],
)
def test_values_are_plain_json(type_: Type, value: Any, text: str) -> None:
    assert wire.encode(type_, value).decode() == text


@pytest.mark.parametrize("value", [7.0, True, None, [1], "x", 2**63])
def test_only_integers_and_their_text_are_integers(value: Any) -> None:
    with pytest.raises(ApiError) as failure:
        RawParams(wire.parse(call(params=[value])).params).get(0, INT)
    assert failure.value.code == "INTERNAL_ERROR"


def test_numbers_may_come_as_text() -> None:
    params = RawParams(wire.parse(call(params=["6", 2, "2.5"])).params)
    assert (params.get(0, INT), params.get(1, FLOAT), params.get(2, FLOAT)) == (6, 2.0, 2.5)


def test_a_record_is_the_join_of_its_members() -> None:
    row = {"uuid": "u", "name_label": "n"}
    members = [wire.JSON.member_encoder(name, STRING)(value) for name, value in row.items()]
    members.insert(1, wire.JSON.member_encoder("sr", OptionType(STRING))(None))
    assert json.loads(wire.JSON.record(members)) == row
    assert json.loads(wire.JSON.array([b"1", b"2"])) == [1, 2]
    assert json.loads(wire.encode(RecordType("console"), {"uuid": "u", "other": 1})) == {"uuid": "u"}


VALUES = st.recursive(
    st.text(st.characters(codec="utf-8")) | st.integers(-(2**63), 2**63 - 1) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(VALUES, max_size=4))
def test_parameters_arrive_as_they_were_sent(params: list[Any]) -> None:
    assert wire.parse(call(params=params)).params == params


@given(st.dictionaries(st.text(), st.text()))
def test_any_map_can_be_encoded(value: dict[str, str]) -> None:
    json.loads(wire.encode(STRING_MAP, value))


@given(st.binary(max_size=100) | st.text('{}[]":,/*\\u0 1methodparsi', max_size=60).map(str.encode))
def test_no_body_breaks_the_parser(body: bytes) -> None:
    with contextlib.suppress(Malformed, wire.InvalidText):
        wire.parse(body)


@pytest.mark.parametrize(("open_", "close"), [(b"[", b"]"), (b'{"a":[', b"]}"), (b'/**/{"a":', b"}")])
@pytest.mark.parametrize("depth", [250, 600, 900, 1000, 5000])
def test_a_body_that_is_too_deeply_nested_is_refused(open_: bytes, close: bytes, depth: int) -> None:
    with pytest.raises(Malformed):
        wire.parse(b'{"method": "x", "id": 1, "params": [' + open_ * depth + b"1" + close * depth + b"]}")
