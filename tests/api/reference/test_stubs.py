"""The type stubs for Python clients, as a type checker sees them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from mypy import api

from services.api.reference import stubs
from shared.datamodel import model

USE = """\
import XenAPI

session = XenAPI.Session("https://localhost", ignore_ssl=True)
session.xenapi.login_with_password("root", "secret", "1.0", "test")
reveal_type(session.xenapi.VM.get_record("ref")["power_state"])
reveal_type(session.xenapi.VM.get_VCPUs_max("ref"))
reveal_type(session.xenapi.VM.get_all_records())
reveal_type(session.xenapi.Async.VM.start("ref", False, False))
reveal_type(session.xenapi.event_from(["*"], "", 3.0)["token"])
session.xenapi.VM.start("ref")
session.xenapi.VM.begin("ref")
session.xenapi.VDI.set_on_boot("ref", "sometimes")
session.xenapi.VM.set_actions_after_crash("ref", "explode")
session.xenapi.Async.VM.get_record("ref")
"""


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What mypy says of each line of `USE`."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "XenAPI.pyi").write_text(stubs.module())
    (folder / "use.py").write_text(USE)
    config = folder / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nmypy_path = {folder}\ncache_dir = {folder / 'cache'}\n")
    output, problems, _ = api.run(["--config-file", str(config), str(folder / "use.py"), str(folder / "XenAPI.pyi")])
    assert not problems
    found = re.findall(rf"^{re.escape(str(Path(folder) / 'use.py'))}:(\d+): (.*)$", output, re.MULTILINE)
    assert "XenAPI.pyi:" not in output, output
    return {int(line): text for line, text in found}


def test_results_have_the_types_that_the_module_gives_back(verdict: dict[int, str]) -> None:
    assert "Literal['Halted']" in verdict[5]
    assert '"str"' in verdict[6]
    assert "dict[str, TypedDict(XenAPI.VM_record" in verdict[7]
    assert '"str"' in verdict[8]
    assert '"str"' in verdict[9]


def test_wrong_calls_are_found(verdict: dict[int, str]) -> None:
    assert "Too few arguments" in verdict[10]
    assert 'no attribute "begin"' in verdict[11]
    assert "incompatible type" in verdict[12]
    assert "incompatible type" in verdict[13]
    assert "get_record" in verdict[14]


def test_right_calls_are_not_complained_about(verdict: dict[int, str]) -> None:
    assert not {3, 4} & set(verdict)


def test_every_message_that_clients_may_call_is_there() -> None:
    defined = {
        f"{node.name.removeprefix('_')}.{method.name}"
        for node in ast.parse(stubs.module()).body
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    }
    wanted = {name for name, message in model.messages.items() if not message.pool_internal}
    assert wanted - defined == {"VM.import", "event.from"}
    assert {"XenAPI.VM_import", "XenAPI.event_from"} <= defined
