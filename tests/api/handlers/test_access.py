"""Who may use which row of the handler table, and what the tasks that clients bring are told."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from services.api.authentication import PoolSecrets
from services.api.call import new_ref
from services.api.edge.endpoint import Kind
from services.api.edge.handlers import HANDLERS, Handler, Missing, Runs
from services.api.handlers import load
from services.api.handlers.handler import HANDLERS as REGISTERED
from services.api.role_rows import holders
from shared import pool_secret
from shared.contracts.db import Create, Update
from shared.datamodel.roles import HIGH_TO_LOW
from tests.api.core.role_matrix import log_in
from tests.api.handlers.conftest import Site

RESTRICTED = [row for row in HANDLERS if row.role and row.role != "local root"]
UNKNOWN = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"


def path(row: Handler, extra: str = "") -> str:
    arguments = [f"{group[0]}=x" for group in row.required] + ([extra] if extra else [])
    return row.path + ("?" + "&".join(arguments) if arguments else "")


async def status(site: Site, row: Handler, extra: str = "", **options: Any) -> int:
    """0: it got in, and the connection was reset as the request then made no sense."""
    body = None if row.method == "GET" else b""
    try:
        return (await site.ask(row.method, path(row, extra), body, **options)).status
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}\r\n"


def test_every_handler_in_the_table_is_there_and_no_other() -> None:
    load()
    assert {row.name for row in HANDLERS if row.runs is Runs.HANDLER} == REGISTERED.keys()


async def test_nobody_gets_in_without_a_proof(site: Site) -> None:
    """Nor with one that is wrong."""
    for row in RESTRICTED:
        for extra, headers in (
            ("", ""),
            (f"session_id={UNKNOWN}", ""),
            ("session_id=", ""),
            ("pool_secret=wrong", ""),
            ("", f"Cookie: session_id={UNKNOWN}\r\n"),
            ("", basic("root", "wrong")),
        ):
            connection = await site.connect()
            body = None if row.method == "GET" else b""
            await connection.send(site.request(row.method, path(row, extra), body, headers, session=""))
            reply = await connection.reply()
            assert (row.name, extra, reply.status) == (row.name, extra, 401)
            assert reply["www-authenticate"] == f'Basic realm="{row.name}"'


async def test_each_role_gets_where_the_table_says(site: Site) -> None:
    for role in HIGH_TO_LOW:
        client = await log_in(site.pool, role)
        for row in RESTRICTED:
            refused = await status(site, row, session=client.session) == 403
            assert (role, row.name, refused) == (role, row.name, role not in holders()[row.permission])


async def test_superusers_hosts_and_passwords_get_everywhere(site: Site) -> None:
    site.pool.set_password("root", "secret")
    file = site.pool.folder / "pool-secret"
    secret = "0123456789abcdef/0123456789abcdef-0123456789"
    pool_secret.write(file, [secret])
    site.api.pool_secrets = PoolSecrets(file)
    before = len(site.pool.store.rows("session"))
    for row in RESTRICTED:
        assert await status(site, row) not in (401, 403)
        assert await status(site, row, f"pool_secret={secret}", session="") not in (401, 403)
        assert await status(site, row, headers=basic("root", "secret"), session="") not in (401, 403)
        assert await status(site, row, session="", kind=Kind.UNIX) not in (401, 403)
    assert len(site.pool.store.rows("session")) == before


async def test_what_is_for_root_on_the_host_alone_is_for_nobody_else(site: Site) -> None:
    [row] = [row for row in HANDLERS if row.role == "local root"]
    assert await status(site, row) == 401
    assert await status(site, row, session="", kind=Kind.UNIX) == 501


# ---- tasks


async def test_a_refused_login_leaves_a_task_pending(site: Site) -> None:
    task = await site.task()
    assert (await site.ask("GET", f"/audit_log?task_id={task}", session=UNKNOWN)).status == 401
    assert site.pool.row("task", task)["status"] == "pending"


async def test_a_forbidden_request_fails_its_clients_task(site: Site) -> None:
    client = await log_in(site.pool, "read-only")
    own = await client.call("task.create", "own", "")
    assert (await site.ask("GET", f"/host_backup?task_id={own}", session=client.session)).status == 403
    row = await site.ended(own)
    assert (row["status"], row["error_info"][:2]) == ("failure", ["RBAC_PERMISSION_DENIED", "http/get_host_backup"])


async def test_nobody_touches_other_peoples_tasks(site: Site) -> None:
    client = await log_in(site.pool, "read-only")
    others = await site.task()
    for handler, code in (("/host_backup", 403), ("/audit_log", 403)):
        assert (await site.ask("GET", f"{handler}?task_id={others}", session=client.session)).status == code
    assert site.pool.row("task", others)["status"] == "pending"
    # A role that may end everybody's tasks may do it here, too.
    assert (await site.ask("GET", f"/audit_log?task_id={await client.call('task.create', 'x', '')}")).status == 200


async def test_the_task_of_a_call_in_progress_is_not_taken_over(site: Site) -> None:
    blob = await site.client.call("blob.create", "text/plain", True)
    task = await site.task()
    await site.pool.write(Update(cls="task", ref=task, fields={"forwarded_to": site.pool.host_ref(0)}))
    reply = await site.ask("PUT", f"/blob?ref={blob}&task_id={task}", b"x")
    assert (reply.status, b"OTHER_OPERATION_IN_PROGRESS" in reply.body) == (500, True)
    assert site.pool.row("task", task)["status"] == "pending"


async def test_a_task_that_is_over_stays_as_it_is(site: Site) -> None:
    task = await site.task()
    await site.client.call("task.set_status", task, "failure")
    assert (await site.ask("GET", f"/audit_log?task_id={task}")).status == 200
    assert site.pool.row("task", task)["status"] == "failure"


async def test_a_task_that_was_cancelled_before_is_not_begun(site: Site) -> None:
    blob, task = await site.client.call("blob.create", "", False), await site.task()
    await site.client.call("task.cancel", task)
    await site.ask("PUT", f"/blob?ref={blob}&task_id={task}", b"x")
    assert site.pool.row("task", task)["status"] == "cancelled"
    assert site.pool.row("blob", blob)["size"] == 0


async def test_a_task_to_be_destroyed_goes_with_its_request(site: Site) -> None:
    task = await site.task()
    await site.client.call("task.destroy", task)
    assert (await site.ask("GET", f"/audit_log?task_id={task}")).status == 200
    assert site.pool.row("task", task) is None


async def test_an_unknown_task_is_an_error(site: Site) -> None:
    reply = await site.ask("GET", f"/audit_log?task_id={UNKNOWN}")
    assert (reply.status, f"HANDLE_INVALID: [ task; {UNKNOWN} ]".encode() in reply.body) == (500, True)


async def test_the_cookies_task_counts_before_the_querys(site: Site) -> None:
    chosen, other = await site.task(), await site.task()
    await site.ask("GET", f"/audit_log?task_id={other}", headers=f"Cookie: a=b; task_id={chosen}\r\n")
    assert site.pool.row("task", chosen)["status"] == "success"
    assert site.pool.row("task", other)["status"] == "pending"


async def test_whatever_the_table_refuses_ends_the_task(site: Site) -> None:
    for method, target, headers, error in (
        ("GET", "/host_backup", "", ["NOT_IMPLEMENTED", "http/get_host_backup"]),
        ("PUT", "/messages", "", ["INTERNAL_ERROR", "put_messages needs the argument cls"]),
        ("GET", "/export?uuid=x", "", ["UUID_INVALID", "VM", "x"]),
        ("PUT", "/import", "Transfer-Encoding: chunked\r\n", ["IMPORT_ERROR_CANNOT_HANDLE_CHUNKED"]),
    ):
        task = await site.task()
        query = f"{target}{'&' if '?' in target else '?'}task_id={task}"
        assert (await site.ask(method, query, headers=headers)).status >= 400
        row = await site.ended(task)
        assert (row["status"], row["error_info"]) == ("failure", error)


async def test_what_a_killed_process_left_is_ended_by_the_next(site: Site) -> None:
    task = await site.task()
    left = {"forwarded_to": site.pool.host_ref(0), "name_label": "get_audit_log", "status": "pending"}
    await site.pool.write(
        Update(cls="task", ref=task, fields={"forwarded_to": site.pool.host_ref(0)}),
        Create(cls="task", ref="OpaqueRef:own", fields=left),
    )
    await site.handlers.begin()
    for ref in (task, "OpaqueRef:own"):
        row = site.pool.row("task", ref)
        assert (row["status"], row["error_info"][0]) == ("failure", "INTERNAL_ERROR")


# ---- refusals of what is not built


REFUSALS = {
    "GET /vncsnapshot": "HTTP/1.1 500 Internal Error",
    "GET /vncsnapshot?ref=x": "HTTP/1.1 500 Internal Error",
    "GET /vm_rrd": "HTTP/1.1 400 Bad Request",
    "GET /vm_rrd?uuid=x": "HTTP/1.1 500 Internal Error",
    "GET /vm_rrds?uuid=": "HTTP/1.1 500 Internal Error",
    "GET /sr_rrd": "HTTP/1.1 400 Bad Request",
    "GET /sr_rrd?uuid=x": "HTTP/1.0 404 Not Found",
    "GET /rrd_updates": "HTTP/1.1 400 Bad Request",
    "GET /host_rrd": "HTTP/1.1 501 Method not implemented",
    "GET /export": "HTTP/1.1 500 Internal Error",
    "GET /export?uuid=": "HTTP/1.1 500 Internal Error",
    "GET /export?ref=x": "HTTP/1.1 500 Internal Error",
    "GET /export_raw_vdi": "HTTP/1.1 500 Internal Error",
    "GET /export_raw_vdi?vdi=x": "HTTP/1.1 500 Internal Error",
    "GET /export_raw_vdi?vdi={vdi}&format=x": "HTTP/1.0 404 Not Found",
    "PUT /import_raw_vdi": "HTTP/1.1 400 Bad Request",
    "PUT /import_raw_vdi?vdi=x": "HTTP/1.1 500 Internal Error",
    "PUT /import_raw_vdi?vdi={vdi}&format=x": "HTTP/1.0 404 Not Found",
    "PUT /import_raw_vdi?vdi={vdi}&format=vhd&chunked=false": "HTTP/1.0 404 Not Found",
    "PUT /import_raw_vdi?sr_uuid=x": "HTTP/1.1 500 Internal Error",
    "PUT /import_raw_vdi?sr_id={sr}&format=qcow2": "HTTP/1.0 400 Bad Request",
    "PUT /import?sr_uuid=x": "HTTP/1.1 500 Internal Error",
    "PUT /import?sr_id={sr}": "HTTP/1.1 501 Method not implemented",
    "PUT /rrd": "HTTP/1.1 400 Bad Request",
    "PUT /rrd?uuid=x": "HTTP/1.1 404 Not Found",
    "PUT /rrd?uuid={host_uuid}": "HTTP/1.1 400 Bad Request",
    "PUT /rrd?uuid={host_uuid}&archive=": "HTTP/1.1 501 Method not implemented",
    "GET /wlb_report": "HTTP/1.1 500 Internal Error",
    "CONNECT /remotecmd?arg=x": "HTTP/1.1 500 Internal Error",
}
"""Request to the line of the reply."""


async def test_arguments_are_looked_at_before_anything_else(site: Site) -> None:
    sr, vdi = new_ref(), new_ref()
    await site.pool.write(
        Create(cls="SR", ref=sr, fields={"uuid": "sr", "content_type": "user"}),
        Create(cls="VDI", ref=vdi, fields={"uuid": "vdi", "SR": sr}),
    )
    known = {"sr": sr, "vdi": vdi, "host_uuid": site.api.host_uuid}
    for request, line in REFUSALS.items():
        method, target = request.format_map(known).split(" ")
        reply = await site.ask(method, target, b"" if method == "PUT" else None)
        assert (request, reply.line) == (request, line)
        assert (reply.body == b"") == (reply.status in (400, 404))


async def test_rows_without_a_handler_give_their_reason(site: Site) -> None:
    vm = site.pool.ref("VM", "Tiny guest")
    for row in HANDLERS:
        if isinstance(row.runs, Missing) and row.name in ("get_export", "get_vncsnapshot"):
            reply = await site.ask(row.method, f"{row.path}?ref={vm}")
            assert (reply.status, row.runs.reason.encode() in reply.body) == (501, True)
