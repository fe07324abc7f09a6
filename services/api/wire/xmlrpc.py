"""XML-RPC: calls in, replies out, in the dialect that XenAPI clients expect (integers are untyped text, no faults)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import chain, compress
from operator import is_not
from typing import Any, Literal

from lxml import etree

from services.api.wire.codec import Encoder, RowEncoder, present, record_fields
from services.api.wire.raw import Malformed
from services.api.wire.unmarshal import DateTime, floating, integer
from shared.datamodel import model
from shared.datamodel.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    MapType,
    OptionType,
    RecordType,
    SetType,
    Type,
)

CONTENT_TYPE = "text/xml"
MAX_DEPTH = 64
"""Of nested values. The model's own deepest parameter has three levels."""

SHORT = 4096
"""Bytes of a call that is first looked at as a plain one."""

_DECLARED = re.compile(rb"""\A\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_END = re.compile(rb"</methodCall\s*>")
_ENCODINGS = {"utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "utf-16", "utf-16le", "utf-16be"}
_BLANK = " \t\n"

# Entities are refused before parsing, so nothing can expand; no network, no files; libxml2's limits on size and depth.
# `collect_ids=False` must not be among them: libxml2 then reads the external DTD, whatever file that is.
_parser = etree.XMLParser(
    encoding="utf-8",
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    huge_tree=False,
    remove_comments=True,
    remove_pis=True,
)


class XmlCall:
    """One call over XML-RPC."""

    __slots__ = ("method", "params")

    def __init__(self, method: str, params: list[Any]) -> None:
        self.method = method
        self.params = params

    def success(self, fragment: bytes) -> bytes:
        return _SUCCESS + fragment + _STRUCT_END

    def envelope(self) -> tuple[bytes, bytes]:
        return _SUCCESS, _STRUCT_END

    def failure(self, description: list[str]) -> bytes:
        return _FAILURE + _descriptions(description) + _STRUCT_END

    def early_failure(self, description: list[str]) -> bytes:
        return self.failure(description)

    def bare(self, fragment: bytes) -> bytes:
        return _REPLY + fragment + _REPLY_END


# ---- calls in


_PLAIN_CALL = re.compile(
    rb"""
    (?: <\?xml\ version=(?: '1\.0' | "1\.0" )\?> )?+ %(blank)b
    <methodCall> %(blank)b <methodName>([A-Za-z0-9_.]++)</methodName> %(blank)b
    <params>(
        (?: %(blank)b <param> %(blank)b
            <value>(?: <string>%(text)b</string> | %(text)b )</value>
        %(blank)b </param> )*+
    ) %(blank)b </params> %(blank)b </methodCall> %(blank)b
    """
    % {b"blank": rb"[ \t\r\n]*+", b"text": rb"[^\x00-\x1f&<>\x7f-\xff]*+"},
    re.VERBOSE,
)
_PLAIN_VALUE = re.compile(rb"<value>(?:<string>)?+([^<]*)")


def _plain_call(body: bytes) -> XmlCall | None:
    """The call, if it is of the form that nearly all have: a few texts in plain ASCII. A tenth of the parser's time."""
    found = _PLAIN_CALL.fullmatch(body)
    if found is None:
        return None
    return XmlCall(found[1].decode(), [text.decode() for text in _PLAIN_VALUE.findall(found[2])])


def parse(body: bytes) -> XmlCall:
    """The call in a request's body. Raises `Malformed`. What follows the root element is ignored."""
    if len(body) < SHORT and (call := _plain_call(body)) is not None:
        return call
    text = _utf8(body)
    try:
        root = etree.fromstring(text, _parser)
    except (etree.XMLSyntaxError, ValueError):
        end = _END.search(text)
        if end is None:
            raise Malformed("the body is not well-formed XML") from None
        try:
            root = etree.fromstring(text[: end.end()], _parser)
        except (etree.XMLSyntaxError, ValueError) as error:
            raise Malformed(f"the body is not well-formed XML: {error}") from None
    if root.tag != "methodCall" or len(root) != 2 or not _blank(root):
        raise Malformed("expected <methodCall> with <methodName> and <params>")
    name, params = root
    if name.tag != "methodName" or params.tag != "params" or len(name) or not name.text or not _blank(params):
        raise Malformed("expected <methodName> and <params>")
    return XmlCall(name.text, [_param(param) for param in params])


def parse_value(text: str) -> Any:
    """The raw value in the text of a `<value>` element, such as a task's result. Raises `Malformed`."""
    try:
        return _value(etree.fromstring(_utf8(text.encode()), _parser), 0)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Malformed(f"not a <value>: {error}") from None


def _utf8(body: bytes) -> bytes:
    """The document in UTF-8. Entity declarations are refused here, whatever the encoding that might hide them."""
    declared = _DECLARED.match(body)
    encoding = declared[1].decode().lower() if declared else "utf-8"
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    if encoding not in _ENCODINGS:
        raise Malformed(f"unknown encoding {encoding}")
    if encoding != "utf-8":
        try:
            body = body.decode(encoding).encode()
        except UnicodeError:
            raise Malformed(f"the body is not {encoding}") from None
    if b"<!ENTITY" in body:
        raise Malformed("entity declarations are refused")
    return body


def _blank(element: etree._Element) -> bool:
    """Nothing but white space between the element's children."""
    text = element.text
    if text and text.strip(_BLANK):
        return False
    for child in element:
        text = child.tail
        if text and text.strip(_BLANK):
            return False
    return True


def _param(element: etree._Element) -> Any:
    if element.tag != "param" or len(element) != 1 or not _blank(element):
        raise Malformed("expected <param> with one <value>")
    return _value(element[0], 0)


def _value(element: etree._Element, depth: int) -> Any:
    if element.tag != "value":
        raise Malformed(f"expected <value>, found <{_name(element)}>")
    if len(element) == 0:
        return element.text or ""
    if len(element) > 1 or not _blank(element):
        raise Malformed("a <value> holds one element")
    if depth > MAX_DEPTH:
        raise Malformed("values are nested too deeply")
    typed = element[0]
    tag = typed.tag
    if tag == "string":
        return _text(typed)
    if tag == "struct":
        return _struct(typed, depth)
    if tag == "array":
        return _array(typed, depth)
    read = _READERS.get(tag) if isinstance(tag, str) else None
    if read is None:
        raise Malformed(f"unknown type <{_name(typed)}>")
    try:
        return read(_text(typed))
    except ValueError as error:
        raise Malformed(str(error)) from None


_READERS: dict[str, Callable[[str], Any]] = {
    "int": integer,
    "i4": integer,
    "i8": integer,
    "double": floating,
    "boolean": lambda text: text == "1",
    "dateTime.iso8601": DateTime,
    "nil": lambda text: None,
}


def _name(element: etree._Element) -> str:
    return element.tag if isinstance(element.tag, str) else "entity"


def _text(element: etree._Element) -> str:
    if len(element):
        raise Malformed(f"<{_name(element)}> holds text only")
    return element.text or ""


def _array(element: etree._Element, depth: int) -> list[Any]:
    if not len(element) and _blank(element):
        return []
    if len(element) != 1 or element[0].tag != "data" or not _blank(element) or not _blank(element[0]):
        raise Malformed("expected <array> with one <data>")
    return [_value(item, depth + 1) for item in element[0]]


def _struct(element: etree._Element, depth: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    if not _blank(element):
        raise Malformed("a <struct> holds <member> elements")
    for member in element:
        if member.tag != "member" or len(member) != 2 or member[0].tag != "name" or not _blank(member):
            raise Malformed("expected <member> with <name> and <value>")
        name = _text(member[0])
        if not name:
            raise Malformed("a member without a name")
        value = _value(member[1], depth + 1)
        members.setdefault(name, value)
    return members


# ---- replies out

_REPLY = b'<?xml version="1.0"?><methodResponse><params><param>'
_REPLY_END = b"</param></params></methodResponse>"
_STATUS = _REPLY + b"<value><struct><member><name>Status</name><value>"
_SUCCESS = _STATUS + b"Success</value></member><member><name>Value</name>"
_FAILURE = _STATUS + b"Failure</value></member><member><name>ErrorDescription</name>"
_STRUCT_END = b"</member></struct></value>" + _REPLY_END

# What XML 1.0 cannot hold is dropped: control characters except TAB, LF, CR; surrogates; two non-characters.
_SPECIAL = re.compile('[&<>"\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def _is_plain(text: str) -> bool:
    """Whether the text, or many joined, can stand as it is. The rest that is special cannot be printed; four searches
    for one character are quicker than one for any of many.
    """
    return text.isprintable() and "&" not in text and "<" not in text and ">" not in text and '"' not in text


def escape(text: str) -> str:
    """Text as it stands between tags, and between those of a member's name."""
    if _is_plain(text):
        return text
    return _SPECIAL.sub(lambda found: _ESCAPED.get(found[0], ""), text)


def _scalar(value: Any) -> str:
    return f"<value>{escape(value)}</value>"


def _integer(value: Any) -> str:
    return f"<value>{value:d}</value>"


def _float(value: Any) -> str:
    return f"<value><double>{value:.16g}</double></value>"


def _bool(value: Any) -> str:
    return "<value><boolean>1</boolean></value>" if value else "<value><boolean>0</boolean></value>"


def _datetime(value: Any) -> str:
    return f"<value><dateTime.iso8601>{escape(value)}</dateTime.iso8601></value>"


_SCALARS: dict[Type, Callable[[Any], str]] = {INT: _integer, FLOAT: _float, BOOL: _bool, DATETIME: _datetime}


@cache
def _writer(type_: Type) -> Callable[[Any], str]:
    """From a plain value to the text of its `<value>` element."""
    match type_:
        case SetType() if _is_text(type_.of):
            return _texts
        case SetType():
            item = _writer(type_.of)
            return lambda value: f"<value><array><data>{''.join(map(item, value))}</data></array></value>"
        case MapType() if _is_text(type_.value):
            return _text_map
        case MapType():
            entry = _writer(type_.value)
            return lambda value: (
                "<value><struct>"
                + "".join([f"{_member_start(k)}{entry(v)}</member>" for k, v in value.items()])
                + "</struct></value>"
            )
        case RecordType():
            return _record(type_)
        case OptionType():
            inner = _writer(type_.of)
            return lambda value: "<value><nil/></value>" if value is None else inner(value)
    return _SCALARS.get(type_, _scalar)


def _is_text(type_: Type) -> bool:
    return type_ not in _SCALARS and not isinstance(type_, SetType | MapType | RecordType | OptionType)


def _texts(value: Any) -> str:
    if not value:
        return "<value><array><data></data></array></value>"
    plain = value if _is_plain("".join(value)) else map(escape, value)
    return f"<value><array><data><value>{'</value><value>'.join(plain)}</value></data></array></value>"


def _text_map(value: Any) -> str:
    if not value:
        return "<value><struct></struct></value>"
    if _is_plain("".join(value.values())):
        entries = [f"{_member_start(k)}<value>{v}</value></member>" for k, v in value.items()]
    else:
        entries = [f"{_member_start(k)}<value>{escape(v)}</value></member>" for k, v in value.items()]
    return f"<value><struct>{''.join(entries)}</struct></value>"


@lru_cache(maxsize=4096)
def _member_start(name: object) -> str:
    """The same few hundred keys stand in all maps."""
    return f"<member><name>{escape(str(name))}</name>"


def _record(type_: RecordType) -> Callable[[Any], str]:
    fields = {name: (of, _writer(of), _member_start(name)) for name, of in record_fields(type_).items()}

    def write(value: Any) -> str:
        members = [
            f"{start}{write_field(value[name])}</member>"
            for name, (of, write_field, start) in fields.items()
            if name in value and present(of, value[name])
        ]
        return f"<value><struct>{''.join(members)}</struct></value>"

    return write


class _RowWriter:
    """Writes the rows of one class. Most values are the very objects that the row before had (`shared.columns`): only
    the others are encoded, the rest is taken from there.

    `_values`: the row before. `_members`: its text, between that of the struct's tags.
    """

    def __init__(self, cls: str) -> None:
        fields = model.classes[cls].fields.values()
        self._writers = [_hidden if field.internal_only else _member(field.name, field.type) for field in fields]
        self._numbers = range(len(self._writers))
        self._values = self._nothing = [self] * len(self._writers)
        self._members = ["<value><struct>", *[""] * len(self._writers), "</struct></value>"]

    def __call__(self, row: dict[str, Any]) -> bytes:
        values: list[Any] = list(row.values())
        known, self._values = self._values, self._nothing  # should one of them fail, all are written next time
        writers, members = self._writers, self._members
        for number in compress(self._numbers, map(is_not, values, known)):
            members[number + 1] = writers[number](values[number])
        self._values = values
        return "".join(members).encode()


def _hidden(_: Any) -> str:
    return ""


def _member(name: str, type_: Type) -> Callable[[Any], str]:
    """From a field's value to its member; "" for a None of an option type. Without a call more than it takes."""
    start = _member_start(name)
    if isinstance(type_, OptionType):
        inner = _member(name, type_.of)
        return lambda value: "" if value is None else inner(value)
    if _is_text(type_):

        def text(value: str) -> str:
            if value.isprintable() and "&" not in value and "<" not in value and ">" not in value and '"' not in value:
                return f"{start}<value>{value}</value></member>"
            return f"{start}<value>{escape(value)}</value></member>"

        return text
    if type_ == INT:
        return lambda value: f"{start}<value>{value:d}</value></member>"
    write = _writer(type_)
    return lambda value: f"{start}{write(value)}</member>"


def _descriptions(description: list[str]) -> bytes:
    items = "".join(map(_scalar, description))
    return f"<value><array><data>{items}</data></array></value>".encode()


class XmlCodec:
    """Values as `<value>` elements."""

    name: Literal["xml"] = "xml"

    @staticmethod
    @cache
    def encoder(type_: Type) -> Encoder:
        write = _writer(type_)
        return lambda value: write(value).encode()

    @staticmethod
    @cache
    def member_encoder(name: str, type_: Type) -> Encoder:
        write = _member(name, type_)
        return lambda value: write(value).encode()

    @staticmethod
    @cache
    def row_encoder(cls: str) -> RowEncoder:
        return _RowWriter(cls)

    @staticmethod
    def member(name: str, fragment: bytes) -> bytes:
        return b"<member><name>%b</name>%b</member>" % (escape(name).encode(), fragment)

    @staticmethod
    def record(members: Iterable[bytes]) -> bytes:
        return b"<value><struct>%b</struct></value>" % b"".join(members)

    @staticmethod
    def map_pieces(names: Sequence[str], fragments: Iterable[bytes]) -> list[bytes]:
        if not names:
            return [b"<value><struct></struct></value>"]
        plain = names if _is_plain("".join(names)) else [escape(name) for name in names]
        starts = [f"</member><member><name>{name}</name>".encode() for name in plain]
        starts[0] = f"<value><struct><member><name>{plain[0]}</name>".encode()
        return [*chain.from_iterable(zip(starts, fragments, strict=True)), b"</member></struct></value>"]

    @staticmethod
    def array(fragments: Iterable[bytes]) -> bytes:
        return b"<value><array><data>%b</data></array></value>" % b"".join(fragments)

    @staticmethod
    def native_int(value: int) -> bytes:
        return b"<value><i4>%d</i4></value>" % value


XML = XmlCodec()


def encode(type_: Type, value: Any) -> bytes:
    """The fragment of one value."""
    return XML.encoder(type_)(value)


def value_text(type_: Type, value: Any) -> str:
    """The same as text: what `task.result` holds, whichever codec its readers speak."""
    return _writer(type_)(value)
