"""What the audit log says about calls: those that change something, and all that are refused."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from services.api import role_rows
from services.api.api import Api
from services.api.audit.line import LOCAL_SESSION, LOCAL_SUPERUSER, NOBODY, Argument, Entry, Kind, Who
from services.api.call import OWN, Call
from services.api.decisions.rows import is_null
from services.api.edge.dispatcher import Caller
from shared.datamodel import model
from shared.datamodel.schema import Message
from shared.datamodel.types import RecordType, RefType, SetType, Type
from shared.errors import ApiError
from shared.logs import track_id

DENIED: Final = "RBAC_PERMISSION_DENIED"

QUIET: Final = frozenset(
    {
        "session.logout",
        "session.local_logout",
        "event.from",
        "event.next",
        "host.tickle_heartbeat",
        "pool.audit_log_append",
    }
)
"""Messages that are no look-ups and would say nothing here, too often."""

PLAIN: Final = frozenset(
    {
        "auth_type",
        "fn",
        "key",
        "label",
        "name",
        "name_label",
        "new_name",
        "plugin",
        "service_name",
        "subject_identifier",
        "uname",
        "uuid",
    }
)
"""Texts that are shown. What else a client gives may be a secret, and is not."""


@cache
def is_noted(message: Message) -> bool:
    """Whether carrying it out is worth a line. Look-ups are recognised by their names, as the original does."""
    return not message.name.startswith("get") and message.wire_name not in QUIET


def who(api: Api, session: str) -> Who:
    row = api.store.row("session", session)
    if row is None:
        local = api.local_sessions.find(session) if session else None
        if local is None:
            return Who(track_id(session), "", "")
        return Who(track_id(session), LOCAL_SESSION, str(local["auth_user_name"]))
    sid = LOCAL_SUPERUSER if row["is_local_superuser"] or row["pool"] else str(row["auth_user_sid"])
    return Who(track_id(session), sid, str(row["auth_user_name"]))


class Noted:
    """One call, from its beginning: objects that it destroys still have their names then, and so has its session."""

    def __init__(self, call: Call, arguments: tuple[Any, ...]) -> None:
        self._call = call
        self._worth_it = is_noted(call.message) and call.caller.originator != OWN
        self._who = who(call.api, call.session)
        self._arguments = tuple(_arguments(call.api, call.message, arguments)) if self._worth_it else ()

    def ended(self, value: Any, error: ApiError | None) -> None:
        """`value`: what it gave; of a login, the session."""
        call, asked = self._call, self._who
        refused = error is not None and error.code == DENIED
        if not call.session:
            if error is not None and not refused:
                return  # of failed logins there may be any number; they are told of elsewhere
            asked = who(call.api, value) if isinstance(value, str) else NOBODY
        if not self._worth_it and not refused:
            return
        entry = Entry(
            at=time.time(),
            host=host_name(call.api, call.caller),
            address=call.caller.address,
            task=f"{call.wire} R:{_short(call.task)}",
            who=asked,
            allowed=not refused,
            result=outcome(error, secret=call.message.secret),
            kind=Kind.API,
            action=call.message.wire_name,
            arguments=self._arguments,
        )
        call.api.audit.note(entry.line())


def refused(call: Call, arguments: tuple[Any, ...], error: ApiError) -> None:
    """A call that was not even begun."""
    Noted(call, arguments).ended(None, error)


def host_name(api: Api, caller: Caller) -> str:
    """Of the host that was called."""
    return next((host.name for host in api.hosts if host.uuid == caller.host), caller.host)


def outcome(error: ApiError | None, *, secret: bool = False) -> str:
    """`secret`: the error's parameters may repeat what the client gave."""
    if error is None:
        return "OK"
    return "ERROR:" + (error.code if secret else ": ".join((error.code, "; ".join(error.params))))


def _short(task: str) -> str:
    """The beginning of the uuid in a task's reference."""
    found = _UUID.search(task)
    return "".join(found.groups()) if found is not None else ""


_UUID: Final = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})")


# ---- arguments


def _arguments(api: Api, message: Message, values: tuple[Any, ...]) -> Iterator[Argument]:
    for param, value in zip(message.params, values, strict=False):
        yield from _argument(api, param.name, param.type, value, secret=message.secret)


def _argument(api: Api, name: str, type_: Type, value: Any, *, secret: bool) -> Iterator[Argument]:
    match type_:
        case RefType():
            yield _object(api, name, type_.cls, value)
        case SetType(of) if isinstance(of, RefType):
            for ref in value:
                yield _object(api, name, of.cls, ref)
        case RecordType():
            yield from _record(api, type_.cls, value)
        case _:
            if name in PLAIN and isinstance(value, str) and (not secret or name == "uname"):
                yield Argument(name, value)


def _record(api: Api, cls: str, fields: Mapping[str, Any]) -> Iterator[Argument]:
    """Of what is to be made: its name and the objects it belongs to."""
    for name, field in model.classes[cls].fields.items():
        if name == "name_label" and name in fields:
            yield Argument(name, fields[name])
        elif isinstance(field.type, RefType) and field.qualifier != "RO/runtime" and not is_null(fields.get(name, "")):
            yield _object(api, name, field.type.cls, fields[name])


def _object(api: Api, parameter: str, cls: str, ref: str) -> Argument:
    if cls == "session":
        return Argument(parameter, track_id(ref))  # the reference is a credential
    store = role_rows.rows() if cls == "role" else api.store
    row = store.row(cls, ref) if cls in store.tables else None
    if row is None:
        return Argument(parameter, "", "", ref)
    return Argument(parameter, str(row.get("name_label", "")), str(row.get("uuid", "")), ref)
