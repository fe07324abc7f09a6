"""JSON-RPC 1.0 and 2.0 as XenAPI speaks it: one object a request, no batches, no notifications."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any, Literal

import orjson

from services.api.wire.codec import Encoder, RowEncoder, present, record_fields
from services.api.wire.raw import Malformed
from shared.datamodel import model
from shared.datamodel.types import FLOAT, MapType, OptionType, RecordType, SetType, Type

CONTENT_TYPE = "application/json"

_MEMBER = re.compile(rb'"\s*:')
_ODD = re.compile(
    r'"(?:[^"\\]|\\(?:.|\Z))*+(?:"|\Z)|/\*.*?(?:(\*/)|\Z)|(//)[^\n]*+|(?<!\w)([A-Za-z_][A-Za-z0-9_]*+)(?=\s*+:)',
    re.DOTALL,
)
"""Strings, comments, names of members. What has no end goes to the end of the text: each character is looked
at once."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_HIGH_SURROGATE = re.compile("[\ud800-\udbff]")
"""Without its other half it is no JSON, while a low one alone is only a character that UTF-8 does not have."""
_LARGEST = 2**64
DEEPEST = 200
"""Objects and arrays inside each other; no parameter of the API needs more than a few."""


class JsonCall:
    """One call over JSON-RPC. `version`: "1.0" or "2.0"."""

    __slots__ = ("id", "method", "params", "version")

    def __init__(self, method: str, params: list[Any], version: str, id_: int | str) -> None:
        self.method = method
        self.params = params
        self.version = version
        self.id = id_

    def success(self, fragment: bytes) -> bytes:
        before, after = self.envelope()
        return before + fragment + after

    def envelope(self) -> tuple[bytes, bytes]:
        if self.version == "1.0":
            return b'{"result":', b',"error":null,"id":%b}' % orjson.dumps(self.id)
        return b'{"jsonrpc":"2.0","result":', b',"id":%b}' % orjson.dumps(self.id)

    def failure(self, description: list[str]) -> bytes:
        if self.version == "1.0":
            return b'{"result":null,"error":%b,"id":%b}' % (_dump(description), orjson.dumps(self.id))
        error = {"code": 1, "message": description[0], "data": description[1:]}
        return b'{"jsonrpc":"2.0","error":%b,"id":%b}' % (_dump(error), orjson.dumps(self.id))

    def early_failure(self, description: list[str]) -> bytes:
        """In the form the original gives it, whatever the version and id of the request."""
        return b'{"jsonrpc":"2.0","error":%b,"id":0}' % _dump(description)

    def bare(self, fragment: bytes) -> bytes:
        return self.success(fragment)


class InvalidText(Exception):
    """A parameter is not UTF-8: answered with INVALID_VALUE before the call is looked at."""

    def __init__(self, call: JsonCall, text: str) -> None:
        self.call = call
        self.description = ["INVALID_VALUE", "Invalid UTF-8 string in parameter", text]
        super().__init__(self.description[1])


# ---- calls in


def parse(body: bytes) -> JsonCall:
    """The call in a request's body. Raises `Malformed`, or `InvalidText` for a parameter that is not UTF-8."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _call_of_odd_text(body)
    # orjson keeps the last of duplicate members, clients of the original know the first one to count. More colons after
    # strings than members means duplicates, or text that looks like a member: the slow parser tells.
    if len(_MEMBER.findall(body)) != _members(request):
        return _call_of_odd_text(body)
    return _call(request)


def _members(value: Any, levels: int = DEEPEST) -> int:
    """Members of all objects in it. Raises `Malformed` for more than `levels` objects and arrays inside each other."""
    if levels == 0:
        raise Malformed("it is too deeply nested")
    count = len(value) if type(value) is dict else 0
    inner: Iterable[Any] = value.values() if type(value) is dict else value if type(value) is list else ()
    for item in inner:  # a loop costs a third of what a sum over a generator does, and this is done for every call
        if type(item) is dict or type(item) is list:
            count += _members(item, levels - 1)
    return count


def _call(request: Any) -> JsonCall:
    if type(request) is not dict:
        raise Malformed("the request is not an object")
    method, id_, params = request.get("method"), request.get("id"), request.get("params")
    if type(method) is not str:
        raise Malformed("the request has no method")
    if type(id_) is not int and type(id_) is not str:
        raise Malformed("the request's id is neither an integer nor a string")
    if "jsonrpc" not in request:
        if type(params) is not list:
            raise Malformed("the parameters are not an array")
        return JsonCall(method, params, "1.0", id_)
    if request["jsonrpc"] != "2.0":
        raise Malformed("the version is neither 1.0 nor 2.0")
    if params is None:
        params = []
    elif type(params) is dict:
        params = [params]
    elif type(params) is not list:
        raise Malformed("the parameters are neither an array nor an object")
    return JsonCall(method, params, "2.0", id_)


def _call_of_odd_text(body: bytes) -> JsonCall:
    """The exact and slow way: what the original's parser lets pass though JSON does not.

    Comments, names without quotes, control characters in strings, `NaN` and `Infinity`, duplicate members, bytes that
    are not UTF-8.
    """
    text = _ODD.sub(_strict, body.decode("utf-8", "surrogateescape"))
    try:
        request = json.loads(text, object_pairs_hook=_first_wins, parse_int=_number, strict=False)
        _members(request)
        call = _call(request)
        orjson.dumps([call.method, call.id])
        bad = next((x for x in _texts(call.params) if _SURROGATE.search(x)), None)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if bad is None:
        return call
    if not _HIGH_SURROGATE.search(bad):
        raise InvalidText(call, _SURROGATE.sub("\ufffd", bad))
    raise Malformed("a surrogate without its other half")


def _strict(found: re.Match[str]) -> str:
    comment, line_comment, name = found.groups()
    if comment or line_comment:
        return " "
    return f'"{name}"' if name else found[0]


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def _number(text: str) -> int | float:
    number = int(text) if len(text) <= 20 else _LARGEST
    return number if -_LARGEST < number < _LARGEST else float(text)


def _texts(value: Any) -> Iterable[str]:
    if type(value) is str:
        yield value
    elif type(value) is list:
        for item in value:
            yield from _texts(item)
    elif type(value) is dict:
        for name, item in value.items():
            yield name
            yield from _texts(item)


# ---- replies out


def _dump(value: Any) -> bytes:
    """JSON of texts that may hold what UTF-8 cannot (a lone surrogate becomes a question mark)."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(json.loads(_SURROGATE.sub("?", json.dumps(value, ensure_ascii=False))))


def _shaper(type_: Type) -> Callable[[Any], Any] | None:
    """What has to happen to a value before orjson sees it; None: nothing.

    Numbers that are not finite become null, as orjson has it: bare `NaN` is not JSON and stops JavaScript clients.
    """
    match type_:
        case SetType():
            item = _shaper(type_.of)
            return None if item is None else lambda value: [item(x) for x in value]
        case MapType():
            entry = _shaper(type_.value)
            return None if entry is None else lambda value: {k: entry(v) for k, v in value.items()}
        case RecordType():
            return _record(type_)
        case OptionType():
            inner = _shaper(type_.of)
            return None if inner is None else lambda value: None if value is None else inner(value)
    return float if type_ == FLOAT else None


def _record(type_: RecordType) -> Callable[[Any], Any]:
    fields = {name: (of, _shaper(of)) for name, of in record_fields(type_).items()}

    def shape(value: Any) -> dict[str, Any]:
        return {
            name: value[name] if shape_field is None else shape_field(value[name])
            for name, (of, shape_field) in fields.items()
            if name in value and present(of, value[name])
        }

    return shape


class JsonCodec:
    """Values as JSON. 64-bit integers are numbers, datetimes and void are strings, map keys are text."""

    name: Literal["json"] = "json"

    @staticmethod
    @cache
    def encoder(type_: Type) -> Encoder:
        shape = _shaper(type_)
        return _dump if shape is None else lambda value: _dump(shape(value))

    @staticmethod
    @cache
    def member_encoder(name: str, type_: Type) -> Encoder:
        start, encode_value = orjson.dumps(name) + b":", JsonCodec.encoder(type_)
        if isinstance(type_, OptionType):
            return lambda value: b"" if value is None else start + encode_value(value)
        return lambda value: start + encode_value(value)

    @staticmethod
    @cache
    def row_encoder(cls: str) -> RowEncoder:
        fields = model.classes[cls].fields
        hidden = [name for name, field in fields.items() if field.internal_only]
        options = [name for name, field in fields.items() if isinstance(field.type, OptionType)]
        shapers = [(name, shape) for name, field in fields.items() if (shape := _shaper(field.type)) is not None]

        def encode(row: dict[str, Any]) -> bytes:
            shown = row.copy()
            for name in hidden:
                del shown[name]
            for name, shape in shapers:
                shown[name] = shape(shown[name])
            for name in options:
                if shown[name] is None:
                    del shown[name]
            # What orjson gives was cut from a larger buffer, whose rest is lost as long as it is kept: a copy is exact.
            return bytes(memoryview(_dump(shown)))

        return encode

    @staticmethod
    def member(name: str, fragment: bytes) -> bytes:
        return _dump(name) + b":" + fragment

    @staticmethod
    def record(members: Iterable[bytes]) -> bytes:
        return b"{%b}" % b",".join(filter(None, members))

    @staticmethod
    def map_pieces(names: Sequence[str], fragments: Iterable[bytes]) -> list[bytes]:
        if not names:
            return [b"{}"]
        starts = [b",%b:" % _dump(name) for name in names]
        starts[0] = b"{" + starts[0][1:]
        return [*chain.from_iterable(zip(starts, fragments, strict=True)), b"}"]

    @staticmethod
    def array(fragments: Iterable[bytes]) -> bytes:
        return b"[%b]" % b",".join(fragments)

    @staticmethod
    def native_int(value: int) -> bytes:
        return b"%d" % value


JSON = JsonCodec()


def encode(type_: Type, value: Any) -> bytes:
    """The fragment of one value."""
    return JSON.encoder(type_)(value)
