"""Plug-ins and extensions: programs of a host that carry out what the API passes on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.api.host_side.plugins import Programs
from shared.contracts.db import Update
from shared.contracts.host import PluginCall
from tests.api.harness import Client, Pool, error_of

PLUGIN = f"""#!{sys.executable}
import os, sys, time, xmlrpc.client
(session, args), fn = xmlrpc.client.loads(sys.argv[1])
def say(**envelope):
    print(xmlrpc.client.dumps((envelope,), methodresponse=True))
if fn == "echo":
    say(Status="Success", Value=args["text"] + session[:10])
elif fn == "fail":
    say(Status="Failure", ErrorDescription=["VM_HALTED", args["text"]])
elif fn == "number":
    say(Status="Success", Value=5)
elif fn == "fault":
    print(xmlrpc.client.dumps(xmlrpc.client.Fault(7, "why"), methodresponse=True))
elif fn == "garbage":
    print("not XML")
elif fn == "exit":
    print("out"); print("err", file=sys.stderr); sys.exit(3)
elif fn == "signal":
    os.kill(os.getpid(), 9)
elif fn == "wait":
    if os.fork() == 0:
        time.sleep(60)
    open(args["file"], "w").write(str(os.getpid())); time.sleep(60)
"""

EXTENSION = f"""#!{sys.executable}
import sys, xmlrpc.client
params, method = xmlrpc.client.loads(sys.stdin.read())
assert sys.argv[1:] == ["--xmlrpc"]
if params[1] == "fail":
    answer = dict(Status="Failure", ErrorDescription=["VM_HALTED", "x"])
elif params[1] == "odd":
    answer = dict(Status="Failure", ErrorDescription=dict(a="b"))
elif params[1] == "crash":
    print("trace", file=sys.stderr); sys.exit(1)
else:
    answer = dict(Status="Success", Value=dict(method=method, given=list(params[1:]), yes=True))
print(xmlrpc.client.dumps((answer,), methodresponse=True))
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    folder = tmp_path / "programs"
    folder.mkdir()
    program(folder / "plugins" / "talk", PLUGIN)
    program(folder / "extensions" / "Thing.do", EXTENSION)
    program(folder / "extensions" / "pool_update.apply", EXTENSION)
    (folder / "plugins" / "notes.txt").write_text("no program")
    running = await Pool.start(
        tmp_path, plugins=str(folder / "plugins"), extensions=str(folder / "extensions"), program_timeout=5.0
    )
    await running.start_api(1)
    yield running
    await running.stop()


async def test_a_plugin_gets_its_arguments_and_a_session(pool: Pool, client: Client) -> None:
    for host in (0, 1):
        answer = await client.call("host.call_plugin", pool.host_ref(host), "talk", "echo", {"text": "<ä>"})
        assert answer == "<ä>OpaqueRef:"


async def test_what_a_plugin_says_went_wrong_is_the_calls_error(pool: Pool, client: Client) -> None:
    assert await refusal(pool, client, "fail", {"text": "x"}) == ["VM_HALTED", "x"]


async def refusal(pool: Pool, client: Client, function: str, arguments: dict[str, str] | None = None) -> list[str]:
    return await client.refusal("host.call_plugin", pool.host_ref(0), "talk", function, arguments or {})


async def test_how_a_plugin_can_fail(pool: Pool, client: Client) -> None:
    assert await refusal(pool, client, "exit") == ["XENAPI_PLUGIN_FAILURE", "non-zero exit", "out\n", "err\n"]
    assert await refusal(pool, client, "signal") == ["XENAPI_PLUGIN_FAILURE", "signal: SIGKILL", "", ""]
    assert await refusal(pool, client, "fault") == ["XENAPI_PLUGIN_FAILURE", "fault", "7", "why"]
    assert (await refusal(pool, client, "number"))[:2] == ["XENAPI_PLUGIN_FAILURE", "unexpected XMLRPC result"]
    code, status, output, _ = await refusal(pool, client, "garbage")
    assert (code, status, output) == ("XENAPI_PLUGIN_FAILURE", "failed to parse plugin output", "not XML\n")


@pytest.mark.parametrize("name", ["nothing", "", "notes.txt", "../plugins/talk", ".", "talk/"])
async def test_only_programs_in_the_folder_are_plugins(pool: Pool, client: Client, name: str) -> None:
    answer = await client.refusal("host.call_plugin", pool.host_ref(0), name, "echo", {})
    assert answer == ["XENAPI_MISSING_PLUGIN", name]


async def gone(pid: int) -> None:
    """Waits for the end of a process and of all in its session."""
    async with asyncio.timeout(10):
        while any(session_of(stat) == pid for stat in Path("/proc").glob("[0-9]*/stat")):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.02)


def session_of(stat: Path) -> int:
    try:
        state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return 0
    return 0 if state == "Z" else int(session)


async def started(file: Path) -> int:
    def text() -> str:
        return file.read_text() if file.exists() else ""

    async with asyncio.timeout(10):
        while not text():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return int(text())


@pytest.mark.parametrize("host", [0, 1])
async def test_a_cancelled_call_kills_its_plugin_and_what_that_has_started(
    pool: Pool, client: Client, host: int, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    task = await client.call("Async.host.call_plugin", pool.host_ref(host), "talk", "wait", {"file": str(file)})
    pid = await started(file)
    await client.call("task.cancel", task)
    await gone(pid)
    await pool.until(lambda: pool.row("task", task)["status"] == "cancelled")


async def test_a_plugin_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    program(tmp_path / "plugins" / "talk", PLUGIN)
    programs = Programs(tmp_path / "plugins", tmp_path, "", timeout=0.5)
    file = tmp_path / "pid"
    late = PluginCall(plugin="talk", function="wait", arguments={"file": str(file)}, session="")
    code, status, *_ = await error_of(programs.call_plugin(late))
    assert (code, status) == ("XENAPI_PLUGIN_FAILURE", "timed out")
    await gone(await started(file))


async def test_a_vms_host_can_be_asked_by_who_may_operate_the_vm(pool: Pool, client: Client) -> None:
    vm = await pool.vm(client)
    assert (await client.refusal("VM.call_host_plugin", vm, "talk", "echo", {"text": "x"}))[0] == "VM_BAD_POWER_STATE"
    await client.call("VM.start", vm, False, False)
    assert await client.call("VM.call_host_plugin", vm, "talk", "echo", {"text": "x"}) == "xOpaqueRef:"
    assert pool.row("VM", vm)["current_operations"] == {}


# ---- extensions


async def test_a_method_that_nobody_knows_may_be_an_extension(pool: Pool, client: Client) -> None:
    answer = await client.call("Thing.do", "a", {"b": 1}, [2.5, False])
    assert answer == {"method": "Thing.do", "given": ["a", {"b": "1"}, [2.5, False]], "yes": True}
    assert await client.refusal("Thing.do", "fail") == ["VM_HALTED", "x"]
    assert await client.refusal("Thing.undo", "a") == ["MESSAGE_METHOD_UNKNOWN", "Thing.undo"]
    assert await client.refusal("../extensions/Thing.do", "a") == ["MESSAGE_METHOD_UNKNOWN", "../extensions/Thing.do"]
    assert (await error_of(client.raw("Thing.do", "no session", "a")))[0] == "SESSION_INVALID"


async def test_extensions_of_a_certain_host(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    assert await client.call("host.has_extension", host, "Thing.do")
    assert not await client.call("host.has_extension", host, "Thing.undo")
    assert await client.call("pool.has_extension", next(iter(pool.store.rows("pool"))), "Thing.do")

    def request(argument: str) -> str:
        return json.dumps({"method": "Thing.do", "params": [client.session, argument], "id": 1})

    assert (await client.call("host.call_extension", host, request("a")))["given"] == ["a"]
    assert await client.refusal("host.call_extension", host, request("odd")) == [
        "EXTENSION_PROTOCOL_FAILURE",
        '{"a": "b"}',
    ]
    code, path, reason, *_ = await client.refusal("host.call_extension", host, request("crash"))
    assert (code, Path(path).name, reason) == ("INTERNAL_ERROR", "Thing.do", "exit status 1")
    assert (await client.refusal("host.call_extension", host, "no JSON"))[0] == "INTERNAL_ERROR"


async def test_a_declared_message_may_be_an_extensions(pool: Pool, client: Client) -> None:
    await client.call("pool_update.apply", "OpaqueRef:x", pool.host_ref(1))
    unknown = await client.refusal("pool_update.precheck", "OpaqueRef:x", pool.host_ref(1))
    assert unknown == ["MESSAGE_METHOD_UNKNOWN", "pool_update.precheck"]


async def test_a_host_is_woken_by_a_plugin_of_the_coordinator(pool: Pool, client: Client, tmp_path: Path) -> None:
    host = pool.host_ref(1)
    await pool.write(
        Update(cls="host_metrics", ref=pool.row("host", host)["metrics"], fields={"live": False}),
    )
    assert await client.refusal("host.power_on", host) == ["HOST_POWER_ON_MODE_DISABLED"]
    await client.call("host.set_power_on_mode", host, "custom", {})
    assert await client.refusal("host.power_on", host) == ["XENAPI_MISSING_PLUGIN", "power-on-host"]
    text = PLUGIN.replace(
        'if fn == "echo"', 'if fn == "main" and args: say(Status="Success", Value="True")\nelif fn == "echo"'
    )
    program(tmp_path / "programs" / "plugins" / "power-on-host", text)
    await client.call("host.power_on", host)
    assert pool.row("host", host)["current_operations"] == {}
