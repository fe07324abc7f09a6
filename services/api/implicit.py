"""Messages that every class has: look-ups and writes of single rows, derived from the data model."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from services.api import query, role_rows
from services.api.api import Api
from services.api.records import Encoded, record_map
from services.api.records import row_fragment as row_fragment
from services.api.wire.codec import Codec
from shared.contracts.db import Change, MapDrop, MapPut, SetAdd, SetDrop, Update
from shared.datamodel import model
from shared.datamodel.schema import MISSING, Message
from shared.datamodel.text import is_storable
from shared.datamodel.types import MapType, SetType
from shared.errors import ApiError, internal_error
from shared.store import Row, Store

Read = Callable[[Store, tuple[Any, ...], Codec], Encoded | Coroutine[Any, Any, Encoded]]
"""Answers a look-up from the rows as they are now, encoded. A coroutine when there are many to encode."""


# ---- reading


def _existing(store: Store, cls: str, ref: str) -> Row:
    row = store.tables[cls].rows.get(ref)
    if row is None:
        raise ApiError("HANDLE_INVALID", cls, ref)
    return row


def reader(message: Message) -> Read | None:
    """How an implicit look-up is answered; None when the message is no look-up."""
    read = _reader(message)
    if read is None or message.cls != "role":
        return read
    return lambda _, arguments, codec: read(role_rows.rows(), arguments, codec)


def _reader(message: Message) -> Read | None:
    if message.kind == "getter":
        return _getter(message)
    if message.kind == "object":
        make = _OBJECT.get(message.name)
        return make(message) if make is not None else None
    return None


def _getter(message: Message) -> Read:
    cls, name = message.cls, message.field.name if message.field is not None else message.name.removeprefix("get_")
    type_ = message.result

    def read(store: Store, arguments: tuple[Any, ...], codec: Codec) -> bytes:
        return codec.encoder(type_)(_existing(store, cls, arguments[0]).fields[name])

    return read


def _get_record(message: Message) -> Read:
    cls = message.cls
    return lambda store, arguments, codec: row_fragment(codec, cls, _existing(store, cls, arguments[0]))


def _get_by_uuid(message: Message) -> Read:
    cls, type_ = message.cls, message.result

    def read(store: Store, arguments: tuple[Any, ...], codec: Codec) -> bytes:
        ref = store.ref_of_uuid(cls, arguments[0])
        if ref is None:
            raise ApiError("UUID_INVALID", cls, arguments[0])
        return codec.encoder(type_)(ref)

    return read


def _get_by_name_label(message: Message) -> Read:
    cls, type_ = message.cls, message.result
    return lambda store, arguments, codec: codec.encoder(type_)(store.by_name_label(cls, arguments[0]))


def _get_all(message: Message) -> Read:
    cls, type_ = message.cls, message.result
    return lambda store, arguments, codec: codec.encoder(type_)(list(store.tables[cls].rows))


def _get_all_records(message: Message) -> Read:
    cls = message.cls
    return lambda store, arguments, codec: record_map(codec, cls, store.tables[cls].rows)


def matching(store: Store, cls: str, expression: str) -> dict[str, Row] | Coroutine[Any, Any, dict[str, Row]]:
    """Rows that the query selects. Raises INVALID_VALUE [expression, reason]; INTERNAL_ERROR for an unknown field."""
    if cls == "role":
        return {ref: store.tables[cls].rows[ref] for ref in role_rows.selected(expression)}
    return query.matching(store, cls, expression)


def _where(cls: str, encode: Callable[[Codec, dict[str, Row]], Encoded | Coroutine[Any, Any, Encoded]]) -> Read:
    def read(store: Store, arguments: tuple[Any, ...], codec: Codec) -> Encoded | Coroutine[Any, Any, Encoded]:
        found = matching(store, cls, arguments[0])
        return encode(codec, found) if isinstance(found, dict) else later(codec, found)

    async def later(codec: Codec, search: Coroutine[Any, Any, dict[str, Row]]) -> Encoded:
        encoded = encode(codec, await search)
        return encoded if isinstance(encoded, bytes | list) else await encoded

    return read


def _get_all_where(message: Message) -> Read:
    type_ = message.result
    return _where(message.cls, lambda codec, rows: codec.encoder(type_)(list(rows)))


def _get_all_records_where(message: Message) -> Read:
    cls = message.cls
    return _where(cls, lambda codec, rows: record_map(codec, cls, rows))


_OBJECT: dict[str, Callable[[Message], Read]] = {
    "get_record": _get_record,
    "get_by_uuid": _get_by_uuid,
    "get_by_name_label": _get_by_name_label,
    "get_all": _get_all,
    "get_all_records": _get_all_records,
    "get_all_where": _get_all_where,
    "get_all_records_where": _get_all_records_where,
}


# ---- writing


def writer(message: Message) -> Callable[[tuple[Any, ...]], Change] | None:
    """The change that a setter, add or remove comes to; None when the message is none of these."""
    cls, field = message.cls, message.field
    if field is None or message.kind not in ("setter", "add", "remove"):
        return None
    name = field.name
    if message.kind == "setter":
        return lambda a: Update(cls=cls, ref=a[0], fields={name: _kept(a[1])})
    if isinstance(field.type, MapType):
        if message.kind == "add":
            return lambda a: MapPut(cls=cls, ref=a[0], field=name, key=_key(a[1]), value=a[2], new=True)
        return lambda a: MapDrop(cls=cls, ref=a[0], field=name, key=str(a[1]))
    if message.kind == "add":
        return lambda a: SetAdd(cls=cls, ref=a[0], field=name, value=a[1])
    return lambda a: SetDrop(cls=cls, ref=a[0], field=name, value=a[1])


def _kept(value: Any) -> Any:
    """A new value of a whole field is kept as it is, or refused. (What is added, or is in a new row, is cut.)"""
    if not is_storable(value):
        raise internal_error("the value has characters that XML cannot hold")
    return value


def _key(value: Any) -> str:
    key = str(value)
    if not key:
        raise ApiError("INTERNAL_ERROR", "Db_exn.Empty_key_in_map")
    return key


async def write(api: Api, message: Message, change: Change, ref: str) -> None:
    """Raises HANDLE_INVALID [class, ref], MAP_DUPLICATE_KEY."""
    if api.store.row(message.cls, ref) is None:
        raise ApiError("HANDLE_INVALID", message.cls, ref)
    await api.database.transact([change])


def constructor_fields(cls: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `create` call that count: those a client may give. Others are ignored.

    Missing ones get the model's default; one without default is INTERNAL_ERROR, as upstream's dispatcher says it.
    """
    fields: dict[str, Any] = {}
    for name, field in model.classes[cls].fields.items():
        if field.qualifier == "RO/runtime" or (isinstance(field.type, SetType) and field.maintained_from is not None):
            continue
        if name in record:
            fields[name] = record[name]
        elif field.default is MISSING:
            raise ApiError("INTERNAL_ERROR", f'Server_helpers.Dispatcher_FieldNotFound("{name}")')
        else:
            fields[name] = field.initial()
    return fields


def new_row(cls: str) -> tuple[str, str]:
    """A reference and a uuid for a new row."""
    return f"OpaqueRef:{uuid.uuid4()}", str(uuid.uuid4())
