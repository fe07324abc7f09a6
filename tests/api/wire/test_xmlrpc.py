import contextlib
import math
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.wire import result
from services.api.wire import xmlrpc as wire
from services.api.wire.raw import Malformed, RawParams
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    STRING,
    STRING_MAP,
    VOID,
    EnumType,
    MapType,
    OptionType,
    RecordType,
    RefType,
    SetType,
    Type,
)
from shared.errors import ApiError


def call(value: str, method: str = "VM.get_all") -> bytes:
    """A call with one parameter, given as the XML inside <param>."""
    return (
        f"<?xml version='1.0'?><methodCall><methodName>{method}</methodName>"
        f"<params><param>{value}</param></params></methodCall>"
    ).encode()


def typed(value: str, type_: Type) -> Any:
    return RawParams(wire.parse(call(value)).params).get(0, type_)


def error_of(value: str, type_: Type) -> list[str]:
    with pytest.raises(ApiError) as failure:
        typed(value, type_)
    return failure.value.description


# ---- parsing

plain_texts = st.text(st.characters(codec="ascii", exclude_characters="<&>"), max_size=8)
values_as_sent = st.one_of(
    plain_texts.map(lambda text: f"<value><string>{text}</string></value>"),
    plain_texts.map(lambda text: f"<value>{text}</value>"),
    st.sampled_from(
        [
            "<value><int>1</int></value>",
            "<value><string>&lt;é</string></value>",
            "<value/>",
            "<value> <string>x</string></value>",
        ]
    ),
)
between = st.sampled_from(["", "\n", " \t", "\r\n", "\x0b"])


@given(
    st.sampled_from(
        ["", "<?xml version='1.0'?>", '<?xml version="1.0"?>', "<?xml version='1.1'?>", " <?xml version='1.0'?>"]
    ),
    st.lists(st.tuples(between, between, values_as_sent), max_size=4),
    between,
    st.sampled_from(["VM.get_all", "system.isAlive:x", "a b", "", "Async.VM.start"]),
    st.sampled_from(["", "\n", "x", "<x/>"]),
)
def test_the_quick_parser_gives_what_the_thorough_one_gives(
    start: str, params: list[tuple[str, str, str]], blank: str, method: str, end: str
) -> None:
    inside = "".join(f"{one}<param>{two}{value}{two}</param>" for one, two, value in params)
    name = f"<methodName>{method}</methodName>"
    body = f"{start}{blank}<methodCall>{blank}{name}<params>{inside}{blank}</params></methodCall>{end}"
    quick = wire._plain_call(body.encode())
    if quick is not None:
        thorough = wire.parse(body.encode() + b"<!-- -->")
        assert (quick.method, quick.params) == (thorough.method, thorough.params)


@given(st.text(alphabet="<>/&\"' \n", max_size=6), st.integers(0, 200), st.integers(0, 3))
def test_nothing_that_is_no_call_is_a_plain_one(inserted: str, at: int, removed: int) -> None:
    body = xmlrpc.client.dumps(("OpaqueRef:s", "x"), "VM.start")
    changed = (body[:at] + inserted + body[at + removed :]).encode()
    quick = wire._plain_call(changed)
    if quick is not None:
        thorough = wire.parse(changed + b"<!-- -->")
        assert (quick.method, quick.params) == (thorough.method, thorough.params)


def test_calls_of_usual_clients_are_plain() -> None:
    assert wire._plain_call(xmlrpc.client.dumps(("OpaqueRef:s", "x y", ""), "VM.start").encode()) is not None
    assert wire._plain_call(xmlrpc.client.dumps((), "system.listMethods").encode()) is not None
    assert wire._plain_call(xmlrpc.client.dumps(("OpaqueRef:s", True), "VM.start").encode()) is None


def test_a_call_of_the_standard_library_is_understood() -> None:
    body = xmlrpc.client.dumps(("OpaqueRef:s", {"a": ["b", 1]}, True, 1.5), "VM.start", allow_none=True).encode()
    parsed = wire.parse(body)
    assert parsed.method == "VM.start"
    assert parsed.params == ["OpaqueRef:s", {"a": ["b", 1]}, True, 1.5]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"<?xml version='1.0'?><methodCall><methodName>VM.get",
        b"<methodCall><methodName>VM.get_all</methodName></methodCall>",
        b"<methodCall><methodName></methodName><params></params></methodCall>",
        b"<methodCall><params/><methodName>x</methodName></methodCall>",
        b"<methodResponse/>",
        call("<value><frob>x</frob></value>"),
        call("<value><string>a & b</string></value>"),
        call("<value><string>&#1;</string></value>"),
        call("<value><string>a&#0;b</string></value>"),
        call(""),
        call("<value/><value/>"),
        call("x<value/>"),
        call("<value>x<string>y</string></value>"),
        call("<value><string>y</string><string>y</string></value>"),
        call("<value><struct><member><name>b</name></member></struct></value>"),
        call("<value><struct><member><name></name><value/></member></struct></value>"),
        call("<value><struct>x</struct></value>"),
        call("<value><array><value/></array></value>"),
        call("<value><int>x</int></value>"),
        call("<value><int/></value>"),
        call("<value><int> 5</int></value>"),
        call("<value><double>x</double></value>"),
        call("<value><double/></value>"),
        call("<value><string><b/></string></value>"),
        call("<value>" + "<array><data><value>" * 80 + "</value></data></array>" * 80 + "</value>"),
        call("<value>" + "<array><data><value>" * 5000 + "</value></data></array>" * 5000 + "</value>"),
        b"<?xml version='1.0' encoding='UTF-7'?><methodCall/>",
        b"<methodCall><methodName>\xff\xfe</methodName><params/></methodCall>",
    ],
)
def test_what_is_not_a_call_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        wire.parse(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (call("<value><string>x</string></value>") + b"junk", "x"),
        (call("<value><string>x</string></value>") + b"<more & more>", "x"),
        (call("<value><string><![CDATA[<x>]]></string></value>"), "<x>"),
        (call("<value><string>a<!-- c -->b</string></value>"), "ab"),
        (call("<value><string>&amp;&lt;&#65;&#x42;&quot;</string></value>"), '&<AB"'),
        (call("<value>\n\t <string> x </string> \n</value>"), " x "),
        (call("<value> x </value>"), " x "),
        (call("<value> </value>"), " "),
        (call("<value/>"), ""),
        (call("<value></value>"), ""),
        (call("<value><string/></value>"), ""),
        (call("<value><nil/></value>"), None),
        (call("<value><array/></value>"), []),
        (call("<value><array><data/></array></value>"), []),
        (call("<value><struct/></value>"), {}),
        (call("<value><boolean>true</boolean></value>"), False),
        (call("<value><boolean>1</boolean></value>"), True),
        (call("<value><i4>0x10</i4></value>"), 16),
        (call("<value><i8>4294967296</i8></value>"), 4294967296),
        (call("<value><double>nan</double></value>").replace(b"nan", b"1e3"), 1000.0),
        (call("<value>h\u00e4\u2603</value>"), "h\u00e4\u2603"),
        (b"<!DOCTYPE methodCall>" + call("<value>x</value>")[21:], "x"),
        (
            b"<?xml version='1.0' encoding='ISO-8859-1'?>"
            + call("<value>\u00e4</value>")[21:].replace(b"\xc3\xa4", b"\xe4"),
            "ä",
        ),
        (call("<value>x</value>").decode().encode("utf-16"), "x"),
    ],
)
def test_what_the_original_tolerates_is_accepted(body: bytes, param: Any) -> None:
    assert wire.parse(body).params == [param]


def test_entities_cannot_be_declared_whatever_hides_them() -> None:
    bomb = "<!DOCTYPE m [<!ENTITY a 'x'><!ENTITY b '&a;&a;&a;'>]>" + call("<value>&b;</value>")[21:].decode()
    for body in (
        bomb.encode(),
        bomb.encode("utf-16"),
        b"<?xml version='1.0' encoding='UTF-7'?>" + bomb.encode("utf-7"),
    ):
        with pytest.raises(Malformed):
            wire.parse(body)


def test_external_entities_are_not_read(tmp_path: Any) -> None:
    (tmp_path / "secret").write_text("secret")
    body = f"<!DOCTYPE m SYSTEM 'file://{tmp_path}/secret'>".encode() + call("<value>&x;</value>")[21:]
    with pytest.raises(Malformed):
        wire.parse(body)


def test_an_external_document_type_is_not_read(tmp_path: Any) -> None:
    (tmp_path / "no.dtd").write_text("not a DTD: reading it would be an error")
    for name in ("no.dtd", "absent"):
        body = f"<!DOCTYPE m SYSTEM 'file://{tmp_path}/{name}'>".encode() + call("<value>x</value>")[21:]
        assert wire.parse(body).params == ["x"]


def test_of_duplicate_members_the_first_counts() -> None:
    member = "<member><name>a</name><value>{}</value></member>"
    assert typed(f"<value><struct>{member.format(1)}{member.format(2)}</struct></value>", STRING_MAP) == {"a": "1"}


# ---- types


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("0x11", 17),
        ("0X1f", 31),
        ("-0x10", -16),
        ("0o17", 15),
        ("0b11", 3),
        ("0u7", 7),
        ("1_000", 1000),
        ("0xffffffffffffffff", -1),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_integers_are_accepted_in_every_spelling(text: str, number: int) -> None:
    for value in (
        f"<value>{text}</value>",
        f"<value><string>{text}</string></value>",
        f"<value><int>{text}</int></value>",
    ):
        assert typed(value, INT) == number


@pytest.mark.parametrize(
    "text", [" 5", "5 ", "", "abc", "0x", "5.0", "9223372036854775808", "0x1ffffffffffffffff", "٣"]
)
def test_other_text_is_no_integer(text: str) -> None:
    assert error_of(f"<value>{text}</value>", INT)[0] == "INTERNAL_ERROR"


def test_floats_are_accepted_as_double_integer_or_text() -> None:
    assert typed("<value><double>2.5</double></value>", FLOAT) == 2.5
    assert typed("<value><int>3</int></value>", FLOAT) == 3.0
    assert typed("<value>4.25</value>", FLOAT) == 4.25
    assert math.isnan(typed("<value><double>nan</double></value>", FLOAT))
    assert typed("<value><double>inf</double></value>", FLOAT) == math.inf
    assert error_of("<value>x</value>", FLOAT)[0] == "INTERNAL_ERROR"


POWER = EnumType("power", ("Halted", "Running"))
BOND = EnumType("bond", ("lacp",), exact=True)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ("<value><int>5</int></value>", STRING),
        ("<value><boolean>1</boolean></value>", STRING),
        ("<value><nil/></value>", STRING),
        ("<value><array/></value>", STRING),
        ("<value><dateTime.iso8601>20250102T03:04:05Z</dateTime.iso8601></value>", STRING),
        ("<value>true</value>", BOOL),
        ("<value><int>1</int></value>", BOOL),
        ("<value><boolean>1</boolean></value>", INT),
        ("<value><double>1</double></value>", INT),
        ("<value>x</value>", SetType(STRING)),
        ("<value><array><data><value><int>5</int></value></data></array></value>", SetType(STRING)),
        ("<value><array/></value>", STRING_MAP),
        ("<value>x</value>", STRING_MAP),
        ("<value>frob</value>", POWER),
        ("<value></value>", POWER),
        ("<value><int>1</int></value>", POWER),
        ("<value>LACP</value>", BOND),
        ("<value><int>1</int></value>", RefType("VM")),
        ("<value><struct/></value>", RecordType("VM")),
    ],
)
def test_a_value_of_another_type_is_an_internal_error(value: str, type_: Type) -> None:
    assert error_of(value, type_)[0] == "INTERNAL_ERROR"


def test_enums_match_without_regard_to_case_and_come_out_canonical() -> None:
    assert typed("<value>rUNNING</value>", POWER) == "Running"
    assert typed("<value>lacp</value>", BOND) == "lacp"


def test_any_text_is_a_reference() -> None:
    assert typed("<value>garbage</value>", RefType("VM")) == "garbage"


def test_map_keys_are_checked_and_stay_text() -> None:
    member = "<value><struct><member><name>{}</name><value>x</value></member></struct></value>"
    assert typed(member.format("0x10"), MapType(INT, STRING)) == {"16": "x"}
    assert typed(member.format("running"), MapType(POWER, STRING)) == {"Running": "x"}
    assert error_of(member.format("x"), MapType(INT, STRING))[0] == "INTERNAL_ERROR"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("20250102T03:04:05Z", "20250102T03:04:05Z"),
        ("2025-01-02T03:04:05Z", "20250102T03:04:05Z"),
        ("2025-01-02 03:04:05", "20250102T03:04:05Z"),
        ("20250102T03:04:05+01:00", "20250102T03:04:05+01:00"),
        ("20250102T03:04:05-0130", "20250102T03:04:05-01:30"),
        ("2025-01-02T03:04:05.5Z", "20250102T03:04:05Z"),
        ("20250102T03:04:05Z ", "20250102T03:04:05Z"),
        ("20240229T00:00:00Z", "20240229T00:00:00Z"),
    ],
)
def test_datetimes_are_brought_into_one_form(text: str, canonical: str) -> None:
    for value in (f"<value><dateTime.iso8601>{text}</dateTime.iso8601></value>", f"<value>{text}</value>"):
        assert typed(value, DATETIME) == canonical


@pytest.mark.parametrize(
    "text",
    ["x", "", "20250102", "2025-01-02", "20250102T03:04", "20250102T030405Z", "20250102T03:04:05.5Z",
     "2025-13-01T00:00:00Z", "20250229T00:00:00Z", "20250102T25:00:00Z", "2025-0102T00:00:00Z"],
)  # fmt: skip
def test_other_text_is_no_datetime(text: str) -> None:
    assert error_of(f"<value>{text}</value>", DATETIME)[0] == "INTERNAL_ERROR"


def test_a_constructor_record_gets_defaults_and_loses_what_is_not_for_clients() -> None:
    members = {"VM": "OpaqueRef:v", "network": "OpaqueRef:n", "device": "0", "nonsense": 1, "uuid": "mine", "MAC": ""}
    members |= {"MTU": "1500", "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    body = xmlrpc.client.dumps((members,), "VIF.create").encode()
    record = RawParams(wire.parse(body).params).get(0, RecordType("VIF"))
    assert record["MTU"] == 1500
    assert "nonsense" not in record
    assert "uuid" not in record
    assert record["locking_mode"] == "network_default"


# ---- encoding


@pytest.mark.parametrize(
    ("type_", "value", "xml"),
    [
        (STRING, "a<b>&\"'", "<value>a&lt;b&gt;&amp;&quot;'</value>"),
        (STRING, "tab\tline\n\x00\x08\x1f", "<value>tab\tline\n</value>"),
        (STRING, "\ud800\ufffe", "<value></value>"),
        (VOID, "", "<value></value>"),
        (INT, 42, "<value>42</value>"),
        (FLOAT, 3.0, "<value><double>3</double></value>"),
        (FLOAT, 0.1, "<value><double>0.1</double></value>"),
        (FLOAT, math.nan, "<value><double>nan</double></value>"),
        (FLOAT, math.inf, "<value><double>inf</double></value>"),
        (BOOL, True, "<value><boolean>1</boolean></value>"),
        (DATETIME, "19700101T00:00:00Z", "<value><dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601></value>"),
        (SetType(STRING), [], "<value><array><data></data></array></value>"),
        (SetType(INT), [1], "<value><array><data><value>1</value></data></array></value>"),
        (STRING_MAP, {"<k>": "v"},
         "<value><struct><member><name>&lt;k&gt;</name><value>v</value></member></struct></value>"),
        (RefType("VM"), "OpaqueRef:NULL", "<value>OpaqueRef:NULL</value>"),
    ],
)  # fmt: skip
def test_values_are_encoded_as_the_original_does(type_: Type, value: Any, xml: str) -> None:
    assert wire.encode(type_, value) == xml.encode()
    assert result.to_text(type_, value) == xml


def test_a_record_is_the_join_of_its_members() -> None:
    row = {"uuid": "u", "name_label": "n"}
    members = [wire.XML.member_encoder(name, STRING)(value) for name, value in row.items()]
    assert wire.XML.record(members) == wire.encode(STRING_MAP, row)
    assert wire.XML.array([wire.encode(INT, 1), wire.encode(INT, 2)]) == wire.encode(SetType(INT), [1, 2])
    assert wire.XML.member("<", b"<value/>") == b"<member><name>&lt;</name><value/></member>"


def test_a_missing_option_is_left_out_of_its_record() -> None:
    assert wire.XML.member_encoder("sr", OptionType(STRING))(None) == b""
    assert b"<value>x</value>" in wire.XML.member_encoder("sr", OptionType(STRING))("x")


def test_records_show_only_fields_of_the_model() -> None:
    xml = wire.encode(RecordType("console"), {"uuid": "u", "protocol": "rfb", "secret thing": "x"})
    assert xmlrpc.client.loads(b"<params><param>" + xml + b"</param></params>")[0][0] == {
        "uuid": "u",
        "protocol": "rfb",
    }


def test_replies_are_read_by_the_standard_library() -> None:
    parsed = wire.parse(call("<value/>"))
    good, _ = xmlrpc.client.loads(parsed.success(wire.encode(INT, 42)))
    assert good == ({"Status": "Success", "Value": "42"},)
    bad, _ = xmlrpc.client.loads(parsed.failure(["CODE", "<1>", ""]))
    assert bad == ({"Status": "Failure", "ErrorDescription": ["CODE", "<1>", ""]},)
    bare, _ = xmlrpc.client.loads(parsed.bare(wire.encode(SetType(STRING), ["a"])))
    assert bare == (["a"],)


def test_the_success_envelope_is_byte_for_byte_the_original() -> None:
    assert wire.parse(call("<value/>")).success(wire.encode(BOOL, True)) == (
        b'<?xml version="1.0"?><methodResponse><params><param><value><struct><member><name>Status</name><value>Success'
        b"</value></member><member><name>Value</name><value><boolean>1</boolean></value></member></struct></value>"
        b"</param></params></methodResponse>"
    )


# ---- what goes out comes back

LEGAL = st.text(st.characters(codec="utf-8", exclude_characters="\r\ufffe\uffff", exclude_categories=["Cc", "Cs"]))
NAMES = LEGAL.filter(bool)


@given(st.dictionaries(NAMES, LEGAL))
def test_maps_survive_a_round_trip(value: dict[str, str]) -> None:
    assert typed(wire.encode(STRING_MAP, value).decode(), STRING_MAP) == value


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_survive_a_round_trip(value: list[int]) -> None:
    assert typed(wire.encode(SetType(INT), value).decode(), SetType(INT)) == value


@given(st.floats(-1e300, 1e300))
def test_floats_survive_a_round_trip_to_sixteen_digits(value: float) -> None:
    back = typed(wire.encode(FLOAT, value).decode(), FLOAT)
    assert back == value or math.isclose(back, value, rel_tol=1e-15)


@given(st.lists(st.text()))
def test_any_text_can_be_encoded_and_task_results_can_be_read_back(value: list[str]) -> None:
    text = result.to_text(SetType(STRING), value)
    assert len(result.from_text(SetType(STRING), text)) == len(value)


@given(st.binary(max_size=200))
def test_no_body_breaks_the_parser(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        wire.parse(body)


@given(st.text("<>/&;!?[]' valuestringcallmthdN", max_size=60))
def test_no_markup_breaks_the_parser(inside: str) -> None:
    with contextlib.suppress(Malformed):
        wire.parse(call(inside))
