"""A XenAPI in memory: rows by class, with the implicit messages of the data model; other calls as given."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from typing import Any

from shared.contracts.api import XenApiAnswer, XenApiCall
from shared.datamodel import model
from shared.errors import ApiError

USER, PASSWORD = "root", "secret"


class FakeXenApi:
    """`on["VM.start"] = function(ref, ...)` answers a call (async functions too). `called` holds every call but the
    implicit reads, without its session. `sessions`: those logged in now."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in model.classes}
        self.on: dict[str, Callable[..., Any]] = {}
        self.called: list[tuple[Any, ...]] = []
        self.reads: list[str] = []
        self.sessions: set[str] = set()
        self.logins = 0

    def add(self, cls: str, **fields: Any) -> str:
        """A row with the model's defaults; returns its reference."""
        ref = f"OpaqueRef:{uuid.uuid4()}"
        visible = [field for field in model.classes[cls].fields.values() if not field.internal_only]
        row = {field.name: field.initial() for field in visible}
        self.rows[cls][ref] = {**row, "uuid": str(uuid.uuid4()), **fields}
        return ref

    def row(self, ref: str) -> dict[str, Any]:
        return next(rows[ref] for rows in self.rows.values() if ref in rows)

    def uuid(self, ref: str) -> str:
        return str(self.row(ref)["uuid"])

    def calls(self, method: str) -> list[tuple[Any, ...]]:
        return [tuple(rest) for name, *rest in self.called if name == method]

    async def transport(self, call: XenApiCall) -> XenApiAnswer:
        try:
            return XenApiAnswer(value=await self._answer(call))
        except ApiError as error:
            return XenApiAnswer(error=error.description)

    async def _answer(self, call: XenApiCall) -> Any:
        if call.method in ("session.login_with_password", "session.slave_local_login_with_password"):
            if not call.trusted and call.params[:2] != [USER, PASSWORD]:
                raise ApiError("SESSION_AUTHENTICATION_FAILED", call.params[0], "no")
            self.logins += 1
            session = f"OpaqueRef:session-{self.logins}"
            self.sessions.add(session)
            return session
        session, *params = call.params
        if session not in self.sessions:
            raise ApiError("SESSION_INVALID", session)
        if call.method in ("session.logout", "session.local_logout"):
            self.sessions.discard(session)
            return ""
        name = call.method.removeprefix("Async.")
        if name not in model.messages:
            raise ApiError("MESSAGE_METHOD_UNKNOWN", call.method)
        if call.method in self.on:
            self.called.append((call.method, *params))
            answer = self.on[call.method](*params)
            return await answer if inspect.isawaitable(answer) else answer
        return self._implicit(call.method, params)

    def _implicit(self, method: str, params: list[Any]) -> Any:
        cls, _, message = method.partition(".")
        rows, declared = self.rows[cls], model.messages[method]
        if message == "get_all_records":
            self.reads.append(method)
            return {ref: dict(row) for ref, row in rows.items()}
        if message == "get_by_uuid":
            for ref, row in rows.items():
                if row["uuid"] == params[0]:
                    return ref
            raise ApiError("UUID_INVALID", cls, params[0])
        if message == "get_by_name_label":
            return [ref for ref, row in rows.items() if row["name_label"] == params[0]]
        if not params or params[0] not in rows:
            raise ApiError("HANDLE_INVALID", cls, params[0] if params else "")
        row = rows[params[0]]
        if message == "get_record":
            return dict(row)
        if declared.kind == "getter":
            return row[message.removeprefix("get_")]
        self.called.append((method, *params))
        if message == "destroy":
            del rows[params[0]]
        elif message.startswith("set_") and (attribute := message.removeprefix("set_")) in row:
            row[attribute] = params[1]
        elif message.startswith("add_to_") and (attribute := message.removeprefix("add_to_")) in row:
            if params[1] in row[attribute]:
                raise ApiError("MAP_DUPLICATE_KEY", cls, attribute, params[0], params[1])
            row[attribute] = {**row[attribute], params[1]: params[2]}
        elif message.startswith("remove_from_") and (attribute := message.removeprefix("remove_from_")) in row:
            row[attribute] = {key: kept for key, kept in row[attribute].items() if key != params[1]}
        elif declared.kind in ("add", "remove"):
            verb, _, attribute = message.partition("_")
            others = [kept for kept in row[attribute] if kept != params[1]]
            row[attribute] = [params[1], *others] if verb == "add" else others
        elif declared.result.empty() != "":
            raise ApiError("NOT_IMPLEMENTED", method)
        return ""

    # ---- what many tests need

    def task(self, status: str = "success", error: tuple[str, ...] = (), result: str = "") -> str:
        """A task that has ended, as `Async.` calls return it; `event.from` tells of it."""
        ref = self.add("task", status=status, error_info=list(error), result=result, progress=1.0)
        self.on["event.from"] = self._events
        return ref

    def _events(self, classes: list[str], token: str, timeout: float) -> dict[str, Any]:
        ref = classes[0].partition("/")[2]
        event = {
            "id": "1",
            "timestamp": "0.0",
            "class": "task",
            "operation": "add",
            "ref": ref,
            "snapshot": self.rows["task"][ref],
        }
        return {"events": [event], "valid_ref_counts": {}, "token": "00000000000000000001,00000000000000000000"}


def small_pool() -> FakeXenApi:
    """One host with its control domain, no SR, no VM."""
    api = FakeXenApi()
    host = api.add("host", name_label="host one", hostname="host1", enabled=True, address="10.0.0.1")
    api.add("pool", master=host, name_label="", other_config={})
    api.add(
        "VM",
        name_label="Control domain on host: host one",
        is_control_domain=True,
        power_state="Running",
        resident_on=host,
        allowed_operations=["metadata_export"],
        other_config={"storage_driver_domain": "x"},
    )
    for name in ("pool-admin", "read-only"):
        api.add("role", name_label=name, subroles=["OpaqueRef:permission"])
    api.add("role", name_label="vm.start", subroles=[])
    return api
