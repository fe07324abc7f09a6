"""Scripts that behave badly, and what becomes of them: errors with the plug-in's own words, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from services.storage.plugins.interface import ActivatedOnAnotherHost, Unimplemented
from services.storage.smapiv3 import run as running
from services.storage.smapiv3.interface_v5 import SR, Plugin, Volume
from services.storage.smapiv3.scripts import Scripts
from shared.bus import context
from shared.bus.context import CallContext
from shared.errors import ApiError
from tests.storage.smapiv3.install import script
from tests.storage.support import HOST_A
from tests.storage.support import SR as UUID


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path, tmp_path / "python")


async def failure(scripts: Scripts, text: str, mode: int = 0o755) -> ApiError:
    script(scripts.folder, "SR.stat", text, mode)
    with pytest.raises(ApiError) as error:
        await scripts.calls(HOST_A, UUID)(SR.stat, sr="handle")
    return error.value


def prints(document: str, status: int = 1) -> str:
    return f"#!/bin/sh\ncat <<'END'\n{document}\nEND\nexit {status}\n"


async def test_a_script_gets_named_parameters_on_its_input_and_nothing_else(scripts: Scripts) -> None:
    script(scripts.folder, "SR.create", f'#!/bin/sh\nread -r line; echo "$#$1 $line" >{scripts.folder}/args; echo {{}}')
    token = context.current.set(CallContext(task="OpaqueRef:1"))
    assert await scripts.calls(HOST_A)(SR.create, UUID, {"a": "$(reboot)"}, name="n", description='"') == {}
    context.current.reset(token)
    said = await asyncio.to_thread((scripts.folder / "args").read_text)
    run, _, rest = said.removeprefix('1--json {"dbg":"').partition(" ")
    assert len(run) == 10
    assert (
        rest == f'OpaqueRef:1","uuid":"{UUID}","configuration":{{"a":"$(reboot)"}},"name":"n","description":"\\""}}\n'
    )


async def test_input_that_is_not_read_does_no_harm(scripts: Scripts) -> None:
    script(scripts.folder, "SR.create", "#!/bin/sh\necho {}\n")
    assert await scripts.calls()(SR.create, UUID, {"a": "x" * (1 << 20)}, name="", description="") == {}


async def test_script_names_are_matched_without_regard_to_case(scripts: Scripts) -> None:
    assert not await scripts.has(Plugin.diagnostics)
    script(scripts.folder, "plugin.DIAGNOSTICS", "#!/bin/sh\necho '\"fine\"'\n")
    assert await scripts.has(Plugin.diagnostics)
    assert await scripts.calls()(Plugin.diagnostics) == "fine"


async def test_garbage_is_shown_with_the_end_of_the_standard_error(scripts: Scripts) -> None:
    error = await failure(scripts, "#!/bin/sh\necho oops\necho 'the disk is on fire' >&2\n")
    assert error.code == "SCRIPT_FAILED"
    path, reason, _, printed, said = error.params
    assert (path, reason, printed) == (str(scripts.folder / "SR.stat"), "bad json on stdout", "oops\n")
    assert said.startswith("log ")
    assert said.endswith(": the disk is on fire\n")


async def test_the_standard_error_is_in_the_log_under_the_name_that_the_error_has(
    scripts: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    error = await failure(scripts, "#!/bin/sh\necho one >&2\nprintf two >&2\nexit 3\n")
    run = error.params[-1].split()[1].rstrip(":")
    assert {f"{run}: one", f"{run}: two"} <= {record.getMessage() for record in caplog.records}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("oops", "non-zero exit and bad json on stdout"),
        ("", "non-zero exit and bad json on stdout"),
        ('{"code": 5, "params": []}', "non-zero exit and bad json on stdout"),
        ('{"code": "X", "params": "text"}', "non-zero exit and bad json on stdout"),
        ('{"code": "no code at all!", "params": []}', "it reported what is no error code"),
    ],
)
async def test_a_failure_without_a_report_is_a_failure_of_the_script(
    scripts: Scripts, document: str, reason: str
) -> None:
    error = await failure(scripts, prints(document))
    assert (error.code, error.params[1]) == ("SCRIPT_FAILED", reason)


async def test_a_script_that_dies_half_way_is_named_with_its_signal(scripts: Scripts) -> None:
    error = await failure(scripts, "#!/bin/sh\nprintf '{\"sr\": '\nkill -9 $$\n")
    assert error.code == "SCRIPT_FAILED"
    assert error.params[1:4] == ["signalled", "9", '{"sr": ']


@pytest.mark.parametrize(
    ("code", "params", "told", "with_log"),
    [
        ("SR_BACKEND_FAILURE_79", '["", "too small", "x"]', ["SR_BACKEND_FAILURE_79", "", "too small"], True),
        ("SR_BACKEND_FAILURE_46", '["a"]', ["SR_BACKEND_FAILURE_46", "a", ""], True),
        ("SR_BACKEND_FAILURE", '["KeyError", "path"]', ["SR_BACKEND_FAILURE", "KeyError", "path"], True),
        ("SR_BACKEND_FAILURE", '["Volume_does_not_exist", "k"]', ["VDI_MISSING", UUID, "k"], False),
        ("Volume_does_not_exist", '["k"]', ["VDI_MISSING", UUID, "k"], False),
        ("SR_BACKEND_FAILURE", '["Sr_not_attached", "s"]', ["SR_NOT_ATTACHED", UUID], False),
        ("SR_BACKEND_FAILURE", '["Cancelled", "task-1"]', ["TASK_CANCELLED", "task-1"], False),
        ("SR_FULL", '["10", 5]', ["SR_FULL", "10", "5"], False),
        ("FLUX_CAPACITOR_EMPTY", '["88"]', ["FLUX_CAPACITOR_EMPTY", "88"], False),
    ],
)
async def test_what_a_script_reports_reaches_the_client(
    scripts: Scripts, code: str, params: str, told: list[str], with_log: bool
) -> None:
    document = f'{{"code": "{code}", "params": {params}, "backtrace": {{"error": "e", "files": [], "lines": []}}}}'
    error = await failure(scripts, prints(document))
    assert error.description[: len(told)] == told
    assert ("log " in error.description[-1]) == with_log


async def test_an_sr_that_does_not_exist_is_unavailable(scripts: Scripts) -> None:
    error = await failure(scripts, prints('{"code": "SR_BACKEND_FAILURE", "params": ["SR_does_not_exist", "/x"]}'))
    assert error.code == "SR_BACKEND_FAILURE_47"
    assert "/x" in error.params[1]


async def test_declared_exceptions_that_callers_know_are_raised_as_such(scripts: Scripts) -> None:
    call = scripts.calls(HOST_A, UUID)
    lacking = prints('{"code": "SR_BACKEND_FAILURE", "params": ["Unimplemented", "x"]}')
    script(scripts.folder, "SR.probe", lacking)
    with pytest.raises(Unimplemented):
        await call(SR.probe, configuration={})
    script(scripts.folder, "SR.ls", lacking)
    with pytest.raises(ApiError, match="UNIMPLEMENTED_IN_SM_BACKEND"):
        await call(SR.ls, sr="")
    busy = '{"code": "SR_BACKEND_FAILURE", "params": ["Activated_on_another_host", "the-host"]}'
    script(scripts.folder, "Volume.stat", prints(busy))
    with pytest.raises(ActivatedOnAnotherHost) as error:
        await call(Volume.stat, sr="", key="")
    assert error.value.host == "the-host"
    script(scripts.folder, "SR.attach", prints(busy))
    with pytest.raises(ApiError, match="SR_DEVICE_IN_USE"):
        await call(SR.attach, configuration={})


@pytest.mark.parametrize("document", ["null", "[]", '{"sr": 1}', '"handle"'])
async def test_a_result_of_another_type_is_refused(scripts: Scripts, document: str) -> None:
    error = await failure(scripts, prints(document, status=0))
    assert error.code == "SCRIPT_RETURNED_RPC_ERROR"
    assert error.params[0] == str(scripts.folder / "SR.stat")


async def test_a_missing_script_and_one_that_may_not_be_run_are_told_apart(scripts: Scripts) -> None:
    with pytest.raises(ApiError, match="SCRIPT_MISSING"):
        await scripts.calls()(SR.stat, sr="")
    assert (await failure(scripts, "#!/bin/sh\n", mode=0o644)).code == "SCRIPT_NOT_EXECUTABLE"


async def test_a_script_whose_interpreter_is_missing_fails(scripts: Scripts) -> None:
    error = await failure(scripts, "#!/no/such/python\n")
    assert error.code == "SCRIPT_FAILED"


async def test_a_child_that_keeps_the_output_open_is_not_waited_for(scripts: Scripts) -> None:
    pid = scripts.folder / "pid"
    script(scripts.folder, "SR.attach", f"#!/bin/sh\nsleep 60 &\necho $! >{pid}\necho '\"handle\"'\n")
    async with asyncio.timeout(20):
        assert await scripts.calls()(SR.attach, {}) == "handle"
    child = int(await asyncio.to_thread(pid.read_text))
    os.kill(child, signal.SIGTERM)  # it lives: a datapath plug-in may have started a server


async def test_a_script_that_never_ends_is_ended_with_its_children_when_it_is_cancelled(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "GRACE", 0.2)
    started = scripts.folder / "started"
    os.mkfifo(started)
    text = f"#!/bin/sh\ntrap '' TERM\nsleep 60 &\necho $$ $! >{started}\nwhile :; do sleep 60; done\n"
    script(scripts.folder, "SR.stat", text)
    hanging = asyncio.ensure_future(scripts.calls()(SR.stat, sr=""))
    pids = [int(pid) for pid in (await asyncio.to_thread(started.read_text)).split()]
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    for pid in pids:
        assert await asyncio.to_thread(ended, pid)


def ended(pid: int) -> bool:
    """Waits for it, whoever's child it is."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 10)[0])
    finally:
        os.close(process)


async def test_a_script_that_prints_for_ever_is_stopped(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LONGEST_OUTPUT", 1 << 20)
    error = await failure(scripts, "#!/bin/sh\nexec yes\n")
    assert (error.code, error.params[1]) == ("SCRIPT_FAILED", "it printed more than a result can be")
    assert len(error.params[3]) < 4096


async def test_a_script_that_complains_for_ever_does_not_fill_the_log(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(running, "LONGEST_LOG", 1000)
    error = await failure(scripts, "#!/bin/sh\nyes no | head -100000 >&2\necho the end >&2\nexit 1\n")
    assert len(caplog.records) < 1000
    assert error.params[-1].endswith("the end\n")


async def test_version_3_has_a_uri_returns_less_and_keeps_no_metadata(scripts: Scripts) -> None:
    scripts.version = "3.0"
    call = scripts.calls()
    with pytest.raises(ApiError, match="MISSING_URI"):
        await call(SR.attach, {})
    uri = '"uri":"file:///x"'
    script(scripts.folder, "SR.attach", f"#!/bin/sh\nread -r it\ncase $it in *'{uri}'*'{uri}'*) echo '\"h\"';; esac\n")
    assert await call(SR.attach, {"uri": "file:///x"}) == "h"
    script(scripts.folder, "SR.create", "#!/bin/sh\necho null\n")
    assert await call(SR.create, "u", {"uri": "file:///x"}, "", "") == {"uri": "file:///x"}
    volume = '{"key": "k", "name": "", "description": "", "read_write": true, "virtual_size": 1, '
    volume += '"physical_utilisation": 1, "uri": [], "keys": {}}'
    script(scripts.folder, "SR.ls", prints(f"[{volume}]", status=0))
    assert [each.sharable for each in await call(SR.ls, "h")] == [False]
    await call(Volume.set, "h", "k", "a", "b")
    scripts.version = "5.0"
    with pytest.raises(ApiError, match="SCRIPT_RETURNED_RPC_ERROR"):
        await call(SR.ls, "h")


async def test_a_script_does_not_outlive_the_service(scripts: Scripts) -> None:
    started = scripts.folder / "started"
    os.mkfifo(started)
    script(scripts.folder, "SR.stat", f"#!/bin/sh\necho $$ >{started}\nexec sleep 60\n")
    service = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from services.storage.smapiv3.interface_v5 import SR
        from services.storage.smapiv3.scripts import Scripts
        asyncio.run(Scripts(Path({str(scripts.folder)!r}), Path("/")).calls()(SR.stat, sr=""))
        """
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", service)
    pid = int(await asyncio.to_thread(started.read_text))
    process.kill()
    await process.wait()
    assert await asyncio.to_thread(ended, pid)
