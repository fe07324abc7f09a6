"""Sessions of low roles try everything that their roles do not have, by every way into the pool: nothing gets through,
nothing changes, and the audit log tells of it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from pool import programs
from services.api.edge.handlers import HANDLERS, Handler
from services.api.operations.role import names
from services.api.role_rows import holders
from shared import config
from shared.bus import amqp
from shared.contracts.db import TRANSACT, Create, Delete, Transact
from shared.datamodel import model
from shared.datamodel.roles import role_ref
from shared.datamodel.types import RecordType, RefType
from shared.logs import track_id
from tests.api.core.role_matrix import Declared, declared, text
from tests.e2e import client
from tests.e2e.test_xe import TIMEOUT, XE, environment
from tests.support import rawhttp
from tests.support.arguments import plausible
from tests.support.pool import PoolUnderTest

pytestmark = pytest.mark.pool

ROLES = ("read-only", "vm-operator")
SAMPLE = 16
"""Of asynchronous calls, which leave a task each, one in so many is tried here; the dispatcher's tests try all."""


@pytest.fixture(scope="module")
def pool(simulator_pool: PoolUnderTest) -> PoolUnderTest:
    return simulator_pool


@pytest.fixture(scope="module")
def intruders(pool: PoolUnderTest) -> Iterator[dict[str, str]]:
    """Role to session, as logins through a directory leave them."""
    sessions = {role: f"OpaqueRef:intruder-{role}" for role in ROLES}
    rows = {
        role: {
            "is_local_superuser": False,
            "auth_user_sid": f"S-1-5-{role}",
            "auth_user_name": role,
            "rbac_permissions": names([role_ref(role)]),
            "last_active": "20990101T00:00:00Z",
        }
        for role in ROLES
    }
    _write(pool, *(Create(cls="session", ref=sessions[role], fields=rows[role]) for role in ROLES))
    yield sessions
    _write(pool, *(Delete(cls="session", ref=ref) for ref in sessions.values()))


def _write(pool: PoolUnderTest, *changes: Any) -> None:
    url = config.load(programs.config_file(pool.directory, "host1", "api")).bus.url

    async def write() -> None:
        bus = await amqp.connect(url, name="tests")
        try:
            await bus.call(TRANSACT, Transact(changes=list(changes)))
        finally:
            await bus.close()

    asyncio.run(write())


@pytest.fixture(scope="module")
def root(pool: PoolUnderTest) -> Iterator[Any]:
    with client.logged_in(pool) as session:
        yield session


@pytest.fixture(scope="module")
def objects(root: Any) -> dict[str, str]:
    """One object of each class that has any, so that what got through would do something."""
    found = {}
    for name, cls in model.classes.items():
        if "get_all_records" in cls.messages and not cls.lifecycle.removed and name not in ("role", "task"):
            refs = getattr(root.xenapi, name).get_all()
            if refs:
                found[name] = refs[0]
    return {**found, "VM": root.xenapi.VM.get_by_name_label("Tiny guest")[0]}


FLEETING = ("task", "message", "role", "host_metrics", "VM_metrics", "VIF_metrics", "VBD_metrics", "VM_guest_metrics")


@pytest.fixture(autouse=True)
def nothing_changes(root: Any, objects: dict[str, str]) -> Iterator[None]:
    def rows() -> dict[str, Any]:
        classes = [name for name in objects if name not in FLEETING]
        return {name: getattr(root.xenapi, name).get_all_records() for name in classes}

    before = rows()
    yield
    assert rows() == before


def beyond(role: str) -> list[Declared]:
    """Messages that the role does not have."""
    return [m for m in declared() if m.refusal(role)[:1] == ["RBAC_PERMISSION_DENIED"]]


def arguments(message: Declared, session: str, objects: dict[str, str]) -> list[Any]:
    def one(type_: Any) -> Any:
        if isinstance(type_, RefType):
            return objects.get(type_.cls, "OpaqueRef:none")
        if isinstance(type_, RecordType):
            fields = model.classes[type_.cls].fields.values()
            return {field.name: one(field.type) for field in fields if field.qualifier != "RO/runtime"}
        return plausible(type_)

    return [session, *(one(param.type) for param in model.messages[message.name].params)]


# ---- calls

Error = list[str]
Call = Callable[[str, list[Any]], Error]
"""Method and parameters to the error; [] for a success."""


class Caller:
    """One connection that stays open."""

    def __init__(self, pool: PoolUnderTest, name: str) -> None:
        self._connection = http.client.HTTPConnection(pool.hosts[name], pool.plan.http_port, timeout=30)

    def _post(self, path: str, body: bytes, type_: str) -> bytes:
        self._connection.request("POST", path, body, {"Content-Type": type_})
        response = self._connection.getresponse()
        data = response.read()
        assert response.status == 200, data
        return data

    def xml(self, method: str, params: list[Any]) -> Error:
        body = xmlrpc.client.dumps(tuple(params), method).encode()
        ((answer,), _) = xmlrpc.client.loads(self._post("/RPC2", body, "text/xml"))
        assert isinstance(answer, dict)
        return list(answer.get("ErrorDescription", []))

    def json_1(self, method: str, params: list[Any]) -> Error:
        body = json.dumps({"method": method, "params": params, "id": 1}).encode()
        return list(json.loads(self._post("/jsonrpc", body, "application/json"))["error"] or [])

    def json_2(self, method: str, params: list[Any]) -> Error:
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()
        error = json.loads(self._post("/jsonrpc", body, "application/json")).get("error")
        return [error["message"], *error["data"]] if error else []

    def underscored(self, method: str, params: list[Any]) -> Error:
        return self.json_2(method.replace(".", "_"), params)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def caller(pool: PoolUnderTest) -> Iterator[Caller]:
    made = Caller(pool, "host1")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("role", "way"),
    [("vm-operator", "xml"), ("vm-operator", "json_2"), ("read-only", "json_1"), ("read-only", "underscored")],
)
def test_no_call_gets_through(
    caller: Caller, intruders: dict[str, str], objects: dict[str, str], role: str, way: str
) -> None:
    call: Call = getattr(caller, way)
    got_through = []
    for message in beyond(role):
        error = call(message.name, arguments(message, intruders[role], objects))
        if error != message.refusal(role):
            got_through.append((message.name, error))
    assert got_through == []


@pytest.mark.parametrize(("role", "prefix"), [("vm-operator", "Async."), ("read-only", "InternalAsync.")])
def test_no_asynchronous_call_gets_through(
    pool: PoolUnderTest, intruders: dict[str, str], objects: dict[str, str], role: str, prefix: str
) -> None:
    session = intruders[role]
    rpc = client.JsonRpc(pool.url)
    tried = [message for message in beyond(role) if message.asynchronous][::SAMPLE]
    assert len(tried) > 15
    for message in tried:
        task = rpc(prefix + message.name, *arguments(message, session, objects))
        rpc("event.from", session, [f"task/{task}"], "", 30.0)
        while rpc("task.get_status", session, task) == "pending":
            rpc("event.from", session, [f"task/{task}"], "", 0.1)
        assert rpc("task.get_error_info", session, task) == message.refusal(role)
        rpc("task.destroy", session, task)


def test_calls_do_not_come_in_arrays(pool: PoolUnderTest, intruders: dict[str, str], objects: dict[str, str]) -> None:
    session, vm = intruders["read-only"], objects["VM"]
    calls = [
        {"jsonrpc": "2.0", "method": "VM.get_all", "params": [session], "id": 1},
        {"jsonrpc": "2.0", "method": "VM.destroy", "params": [session, vm], "id": 2},
    ]
    for body in (calls, [calls[1]]):
        answer = rawhttp.exchange(
            pool.hosts["host1"], pool.plan.http_port, rawhttp.post(json.dumps(body).encode(), "/jsonrpc")
        )
        assert answer.status == 500


# ---- HTTP handlers

WAYS: dict[str, Callable[[str], tuple[dict[str, str], str]]] = {
    "query": lambda session: ({"session_id": session}, ""),
    "cookie": lambda session: ({}, f"Cookie: session_id={session}\r\n"),
    "cookie over a better query": lambda session: (
        {"session_id": "OpaqueRef:none"},
        f"Cookie: session_id={session}\r\n",
    ),
}


@pytest.mark.parametrize("host", ["host1", "host2"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", ROLES)
def test_no_http_handler_lets_them_in(
    pool: PoolUnderTest, intruders: dict[str, str], objects: dict[str, str], role: str, way: str, host: str
) -> None:
    given = {"uuid": "x", "ref": objects["VM"], "vdi": "x", "cls": "VM", "cmd": "rsync", "all": "true"}
    query, headers = WAYS[way](intruders[role])
    got_through = []
    for row in HANDLERS:
        if not row.role or row.role == "local root" or role in holders()[row.permission]:
            continue
        if row.coordinator and host != "host1":
            continue
        status = _status(pool, host, row, urlencode({**given, **query}), headers)
        if status != 403:
            got_through.append((row.name, status))
    assert got_through == []


def _status(pool: PoolUnderTest, host: str, row: Handler, query: str, headers: str) -> int:
    request = f"{row.method} {row.path}?{query} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: 0\r\n\r\n"
    return rawhttp.exchange(pool.hosts[host], pool.plan.http_port, request.encode()).status


def test_a_hosts_console_is_not_for_operators_of_vms(pool: PoolUnderTest, intruders: dict[str, str], root: Any) -> None:
    for vm, record in root.xenapi.VM.get_all_records().items():
        if not record["is_control_domain"]:
            continue
        query = urlencode({"ref": vm, "session_id": intruders["vm-operator"]})
        for name, host in pool.hosts.items():
            request = f"CONNECT /console?{query} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
            answer = rawhttp.exchange(host, pool.plan.http_port, request)
            assert answer.status == 403, name
            assert b"http/connect_console/host_console" in answer.body


# ---- the command line

COMMANDS = (
    ("host-disable", "uuid={host}"),
    ("host-param-set", "uuid={host}", "name-label=mine"),
    ("pool-param-set", "uuid={pool}", "name-label=mine"),
    ("pool-param-add", "uuid={pool}", "param-name=other-config", "x=y"),
    ("sr-destroy", "uuid={SR}"),
    ("network-create", "name-label=mine"),
    ("secret-create", "value=x"),
    ("user-password-change", "old=", "new=x"),
    ("vm-param-set", "uuid={VM}", "name-label=mine"),
    ("vm-param-set", "uuid={VM}", "other-config:pci=0/0000:00:00.0"),
    ("vm-param-set", "uuid={VM}", "platform:hvm_serial=none"),
    ("vm-install", "template-uuid={VM}", "new-name-label=mine"),
    ("template-uninstall", "template-uuid={VM}", "--force"),
)


@pytest.mark.parametrize("role", ROLES)
def test_no_command_gets_through(
    pool: PoolUnderTest, intruders: dict[str, str], objects: dict[str, str], root: Any, role: str
) -> None:
    """The CLI service is a client like any other: it has no more than the session that it was given."""
    uuids = {name: getattr(root.xenapi, name).get_uuid(objects[name]) for name in ("host", "pool", "SR", "VM")}
    for words in COMMANDS if role == "vm-operator" else COMMANDS[::4]:
        done = _xe(pool, intruders[role], *(word.format(**uuids) for word in words))
        assert done.returncode != 0, words
        assert "RBAC_PERMISSION_DENIED" in done.stderr or "Roles with this permission" in done.stderr, (
            words,
            done.stderr,
        )


def _xe(pool: PoolUnderTest, session: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`session_id=` stands before the command, over the network."""
    return subprocess.run(
        [XE, "-s", pool.hosts["host1"], f"session_id={session}", *words],
        env=environment(pool),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


# ---- what is left of it


def test_the_audit_log_tells_of_every_attempt_and_of_no_session(
    pool: PoolUnderTest, intruders: dict[str, str], objects: dict[str, str], caller: Caller, tmp_path: Path
) -> None:
    session = intruders["read-only"]
    assert caller.xml("VM.destroy", [session, objects["VM"]])[0] == "RBAC_PERMISSION_DENIED"
    request = f"GET /audit_log?session_id={session} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    answer = rawhttp.exchange(pool.hosts["host1"], pool.plan.http_port, request)
    lines = answer.body.decode().splitlines()
    assert answer.status == 200
    mine = [line for line in lines if f"('{track_id(session)}' 'S-1-5-read-only' 'read-only' 'DENIED'" in line]
    assert "'API' 'VM.destroy' (('self' " in mine[-1]
    assert session not in answer.body.decode()
    assert text(("pool-admin",)) in answer.body.decode()
    file = tmp_path / "audit.log"
    done = _xe(pool, session, "audit-log-get", f"filename={file}", "since=2020-01-01T00:00:00Z")
    assert (done.stdout, done.returncode) == ("Audit-log-get succeeded\n", 0), done.stderr
    assert file.read_text().startswith("\n".join(lines[:-1]))
    none = tmp_path / "none.log"
    done = _xe(pool, session, "audit-log-get", f"filename={none}", "since=2099-01-01")
    assert (done.returncode, none.read_text()) == (0, "")


def test_what_members_refuse_is_in_the_coordinators_log(pool: PoolUnderTest, intruders: dict[str, str]) -> None:
    session = intruders["vm-operator"]
    row = next(row for row in HANDLERS if row.name == "put_host_restore")
    assert _status(pool, "host2", row, urlencode({"session_id": session}), "") == 403
    wanted = f"('{track_id(session)}' 'S-1-5-vm-operator' 'vm-operator' 'DENIED' "
    request = f"GET /audit_log?session_id={session} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    deadline = time.monotonic() + 10
    while True:
        log = rawhttp.exchange(pool.hosts["host1"], pool.plan.http_port, request).body.decode()
        if any("|audit|host2|" in line and wanted in line and "host_restore'" in line for line in log.splitlines()):
            return
        assert time.monotonic() < deadline, "the line has not arrived"
