"""The Python packages that plug-ins import, as the system's own Python sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.storage.smapiv3 import bindings
from services.storage.smapiv3 import interface_v5 as v5
from services.storage.smapiv3.declaration import functions
from tests.storage.smapiv3.install import DATAPATH, VOLUME, install


def run(packages: Path, program: list[str | Path], stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(program, input=stdin, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    return install("simple_file", tmp_path / "plugin", VOLUME)


def call(packages: Path, script: Path, **arguments: object) -> tuple[int, object]:
    done = run(packages, [script, "--json"], json.dumps({"dbg": "test", **arguments}) + "\n")
    return done.returncode, json.loads(done.stdout)


def test_a_command_makes_them(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "-m", "services.storage.smapiv3.bindings", tmp_path], check=True)
    assert made.returncode == 0
    for module in ("__init__", "storage/log", "storage/common", *(f"storage/api/v5/{name}" for name in v5.MODULES)):
        assert (tmp_path / "xapi" / f"{module}.py").is_file(), module


def test_making_them_again_leaves_files_alone_that_scripts_may_be_reading(tmp_path: Path) -> None:
    bindings.write(tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.py")}
    (tmp_path / "xapi/storage/log.py").write_text("an older version")
    bindings.write(tmp_path)
    after = {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    assert [path.name for path in before if before[path] != after[path]] == ["log.py"]


def test_each_interface_has_its_classes_with_every_function(packages: Path) -> None:
    program = """if True:
        import importlib, json
        found = {}
        for module in ("plugin", "volume", "datapath", "task"):
            loaded = importlib.import_module("xapi.storage.api.v5." + module)
            for name in vars(loaded):
                if name.endswith("_commandline"):
                    interface = name.rpartition("_")[0]
                    skeleton, dispatcher, commandline = (
                        getattr(loaded, interface + kind)
                        for kind in ("_skeleton", "_server_dispatcher", "_commandline")
                    )
                    made = skeleton(), dispatcher(None), commandline(None)
                    found[module + "." + interface] = [[x for x in dir(one) if x[0] != "_"] for one in made]
        print(json.dumps(found))
    """
    found = json.loads(run(packages, ["/usr/bin/python3", "-c", program]).stdout)
    for module, interfaces in v5.MODULES.items():
        for interface in interfaces:
            names = sorted(function.name.partition(".")[2] for function in functions(interface))
            assert found[f"{module}.{interface.__name__}"] == [names, names, names]


def test_a_function_that_is_not_there_is_unimplemented(packages: Path, plugin: Path) -> None:
    status, report = call(packages, plugin / "Volume.compose", sr="s", key="a", key2="b")
    assert status == 1
    assert isinstance(report, dict)
    assert (report["code"], report["params"]) == ("SR_BACKEND_FAILURE", ["Unimplemented", "Volume.compose"])
    assert report["backtrace"].keys() == {"error", "files", "lines"}


def test_arguments_are_checked_before_and_results_after_the_call(packages: Path, plugin: Path) -> None:
    for wrong in ({"sr": "s"}, {"sr": "s", "key": 5}, {"sr": "s", "key": None}):
        status, report = call(packages, plugin / "Volume.stat", **wrong)
        assert status == 1
        assert isinstance(report, dict)
        assert report["params"][0] in ("TypeError", "UnmarshalException")
    text = (plugin / "simple_file.py").read_text().replace('"nothing to say"', "{}")
    (plugin / "simple_file.py").write_text(text)
    status, report = call(packages, plugin / "Plugin.diagnostics")
    assert status == 1
    assert "expected=string" in str(report)


def test_exceptions_with_a_code_are_reported_with_it(packages: Path, plugin: Path) -> None:
    status, report = call(packages, plugin / "SR.attach", configuration={})
    assert isinstance(report, dict)
    assert (status, report["code"]) == (1, "SR_BACKEND_FAILURE_94")
    assert report["params"] == ["", "The location is missing", ""]


def test_on_a_command_line_parameters_come_in_the_order_of_their_declaration(packages: Path, plugin: Path) -> None:
    folder = plugin.parent / "sr"
    create = ["--configuration", "location", folder, "--configuration", "a", "b"]
    done = run(packages, [plugin / "SR.create", "dbg", "the-uuid", *map(str, create), "name", "description"])
    assert json.loads(done.stdout) == {"location": str(folder), "a": "b"}
    volume = json.loads(run(packages, [plugin / "Volume.create", "dbg", folder, "n", "d", "4096", "false"]).stdout)
    assert volume["virtual_size"] == 4096
    wrong = run(packages, [plugin / "Volume.stat", "dbg", folder, "no-such-volume"])
    assert wrong.returncode != 0
    assert "Volume_does_not_exist" in wrong.stderr


def test_variants_lists_and_ranges_pass_both_ways(packages: Path, tmp_path: Path) -> None:
    folder = install("raw_file", tmp_path / "raw+file", DATAPATH)
    data = tmp_path / "disk"
    data.write_bytes(b"")
    status, backend = call(packages, folder / "Datapath.attach", uri=f"raw+file://{data}", domain="d")
    assert isinstance(backend, dict)
    assert (status, backend["implementations"][2]) == (0, ["File", {"path": str(data)}])
    assert call(packages, folder / "Data.stat", operation=["MirrorV1", "m1"])[0] == 0
    assert call(packages, folder / "Data.stat", operation=["MirrorV2", "m1"])[0] == 1
    assert call(packages, folder / "Data.stat", operation="m1")[0] == 1


def test_a_plug_ins_log_is_its_standard_error(packages: Path) -> None:
    program = "from xapi.storage import log; log.info('hello %s', 'there'); from xapi.storage.common import call"
    done = run(packages, ["/usr/bin/python3", "-c", program + "; print(call('dbg', ['echo', 'out']))"])
    assert "INFO - hello there" in done.stderr
    assert done.stdout == "b'out\\n'\n"
    failing = run(packages, ["/usr/bin/python3", "-c", program + "; call('dbg', ['false'])"])
    assert "InternalError" in failing.stderr
    assert "ERROR - dbg: false exited with code 1" in failing.stderr
