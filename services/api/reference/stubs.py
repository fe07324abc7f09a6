"""Type stubs for the Python module `XenAPI`: what its dynamic proxies offer, spelled out for editors and type checkers.

Types are those a Python client meets: over XML-RPC an int comes back as text, a datetime as `xmlrpc.client.DateTime`.
Messages whose name is a word of Python (`event.from`) are there by their other spelling, `xenapi.event_from`.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator

from shared.datamodel import model
from shared.datamodel.schema import MISSING, Class, Message, Param
from shared.datamodel.types import EnumType, MapType, OptionType, RecordType, RefType, SetType, Type

_HEAD = '''\
"""Types of the XenAPI for the Python module `XenAPI`. Generated from the data model: do not edit."""

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict
from xmlrpc.client import DateTime, ServerProxy, Transport

API_VERSION_1_1: str
API_VERSION_1_2: str
'''

_EVENTS = """
event_on_the_wire = TypedDict("event_on_the_wire", {
    "id": str,
    "timestamp": str,
    "class": str,
    "operation": Literal["add", "del", "mod"],
    "ref": str,
    "snapshot": NotRequired[dict[str, Any]],
})

class event_batch(TypedDict):
    events: list[event_on_the_wire]
    valid_ref_counts: dict[str, int]
    token: str
"""

_AS_SENT = {"event.from": "event_batch", "event.next": "list[event_on_the_wire]"}
"""Results that the data model describes otherwise than they are sent."""

_SESSION = '''\
class Failure(Exception):
    details: list[str]
    """The code of the error, then its parameters."""
    def __init__(self, details: list[str]) -> None: ...

class UDSTransport(Transport): ...

class Session(ServerProxy):
    """A connection to a host; `xenapi` has the classes of the API."""

    xenapi: _XenAPI
    handle: session_ref | None
    transport: Transport | None
    last_login_method: str | None
    last_login_params: tuple[str, ...] | None
    def __init__(
        self,
        uri: str,
        transport: Transport | None = None,
        encoding: str | None = None,
        verbose: bool = False,
        allow_none: bool = True,
        ignore_ssl: bool = False,
    ) -> None: ...
    @property
    def API_version(self) -> str: ...
    def login_with_password(
        self, uname: str, pwd: str, version: str = ..., originator: str = ..., /
    ) -> None: ...
    def slave_local_login(self, psecret: str, /) -> None: ...
    def slave_local_login_with_password(self, uname: str, pwd: str, /) -> None: ...
    def logout(self) -> None: ...

def xapi_local() -> Session: ...
'''

_LOGINS = ("login_with_password", "slave_local_login", "slave_local_login_with_password")
"""Messages that the module keeps the session of: it gives nothing back."""

_SCALARS = {"string": "str", "int": "str", "float": "float", "bool": "bool", "datetime": "DateTime", "void": "str"}
_GIVEN = {"int": "int | str", "float": "float | int", "datetime": "DateTime | str"}


def module() -> str:
    """The text of `XenAPI.pyi`."""
    classes = list(model.classes.values())
    parts = [_HEAD]
    parts += [f"{cls.name}_ref: TypeAlias = str\n" for cls in classes]
    parts.append("\n")
    parts += [f"{name}: TypeAlias = Literal[{_words(enum)}]\n" for name, enum in sorted(_enums().items())]
    parts += [_record(cls) for cls in classes if cls.fields]
    parts.append(_EVENTS)
    for asynchronous in (False, True):
        parts += [_proxy(cls, asynchronous) for cls in classes if _offered(cls, asynchronous)]
    parts += [_root(classes), "\n", _SESSION]
    return "".join(parts)


def _enums() -> dict[str, EnumType]:
    return {_enum_name(enum): enum for cls in model.classes.values() for enum in cls.enums.values()}


def _enum_name(enum: EnumType) -> str:
    return f"{enum.name}_enum"


def _words(enum: EnumType) -> str:
    return ", ".join(f'"{value}"' for value in enum.values)


def _returned(type_: Type) -> str:
    match type_:
        case RefType(cls):
            return f"{cls}_ref"
        case RecordType(cls):
            return f"{cls}_record"
        case SetType(of):
            return f"list[{_returned(of)}]"
        case MapType(key, value):
            return f"dict[{_key(key)}, {_returned(value)}]"
        case OptionType(of):
            return _returned(of)
        case EnumType():
            return _enum_name(type_)
    return _SCALARS.get(str(type_), "Any")


def _key(type_: Type) -> str:
    """Keys of a struct are text, whatever they stand for."""
    return _returned(type_) if isinstance(type_, RefType | EnumType) else "str"


def _given(type_: Type) -> str:
    match type_:
        case RecordType():
            return "dict[str, Any]"
        case SetType(of):
            return f"list[{_given(of)}]"
        case MapType(key, value):
            return f"dict[{_key(key)}, {_given(value)}]"
        case OptionType(of):
            return _given(of)
    return _GIVEN.get(str(type_)) or _returned(type_)


def _record(cls: Class) -> str:
    """In the functional form: some fields are words of Python."""
    lines = [f'{cls.name}_record = TypedDict("{cls.name}_record", {{\n']
    for field in cls.fields.values():
        if not field.internal_only:
            kind = _returned(field.type)
            lines.append(
                f'    "{field.name}": {f"NotRequired[{kind}]" if isinstance(field.type, OptionType) else kind},\n'
            )
    return "\n" + "".join(lines) + "})\n"


def _proxy_name(cls: Class, asynchronous: bool) -> str:
    return f"_Async_{cls.name}" if asynchronous else f"_{cls.name}"


def _offered(cls: Class, asynchronous: bool) -> list[Message]:
    return [
        message
        for message in cls.messages.values()
        if not message.pool_internal and (message.has_async or not asynchronous)
    ]


def _proxy(cls: Class, asynchronous: bool) -> str:
    lines = [f"\nclass {_proxy_name(cls, asynchronous)}:\n"]
    if not asynchronous:
        lines.append(f"    {_quoted(cls.doc)}\n\n")
    methods = [m for m in _offered(cls, asynchronous) if not keyword.iskeyword(m.name)]
    for message in methods:
        lines += _method(message, message.name, asynchronous)
    return "".join(lines) + ("" if methods else "    ...\n")


def _method(message: Message, name: str, asynchronous: bool) -> Iterator[str]:
    """Parameters have no names for callers: the module sends them by position."""
    params = [_param(param) for param in message.params]
    listed = ", ".join(["self", *params, "/"] if params else ["self"])
    result = _AS_SENT.get(message.wire_name) or _returned(message.result)
    if asynchronous or message.name in _LOGINS:
        result = "task_ref" if asynchronous else "None"
    yield f"    def {name}({listed}) -> {result}:\n"
    yield f"        {_quoted(message.doc)}\n"


def _param(param: Param) -> str:
    name = f"{param.name}_" if keyword.iskeyword(param.name) or param.name == "self" else param.name
    return f"{name}: {_given(param.type)}" + ("" if param.default is MISSING else " = ...")


def _root(classes: list[Class]) -> str:
    """`session.xenapi`: one attribute for each class, logins, and what cannot be an attribute's attribute."""
    lines = ["\nclass _Async:\n"]
    lines += [f"    {cls.name}: {_proxy_name(cls, True)}\n" for cls in classes if _offered(cls, True)]
    lines.append("\nclass _XenAPI:\n    Async: _Async\n")
    lines += [f"    {cls.name}: {_proxy_name(cls, False)}\n" for cls in classes if _offered(cls, False)]
    for name in (*_LOGINS, "logout"):
        lines += _method(model.messages[f"session.{name}"], name, False)
    for cls in classes:
        for message in _offered(cls, False):
            if keyword.iskeyword(message.name):
                lines += _method(message, f"{cls.name}_{message.name}", False)
    return "".join(lines)


def _quoted(text: str) -> str:
    inside = text.replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{inside}{" " if inside.endswith(chr(34)) else ""}"""'
