"""Which executables of a folder become SR types."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from services.storage.journal import Journal
from services.storage.plugins.dummy import DummyPlugin
from services.storage.registry import Registry
from services.storage.smapiv1.discovery import Discovery
from services.storage.smapiv1.driver_info import features
from services.storage.smapiv1.host import DriverHost
from services.storage.smapiv1.view import SystemView
from services.storage.smapiv1.xapi import Xapi
from tests.storage.smapiv1.conftest import DRIVERS

INFO = (
    "<methodResponse><params><param><value><struct>"
    + "".join(
        f"<member><name>{name}</name><value><string>{name}</string></value></member>"
        for name in ("name", "description", "vendor", "copyright", "driver_version", "required_api_version")
    )
    + "<member><name>capabilities</name><value><array><data><value>SR_SCAN</value></data></array></value></member>"
    + "<member><name>configuration</name><value><array><data></data></array></value></member>"
    + "</struct></value></param></params></methodResponse>"
)


class Folder:
    """A folder of drivers that are shell scripts, and who looks into it."""

    def __init__(self, path: Path, allowed: tuple[str, ...] = ("*",), patience: float = 30.0) -> None:
        self.path = path / "sm"
        self.path.mkdir()
        self.registry = Registry({"dummy": DummyPlugin(Journal(path / "dummy"))})
        host = DriverHost("a0000000-0000-4000-8000-00000000000a", Xapi(""), SystemView(path / "state"))
        self.discovery = Discovery(self.path, allowed, {host.uuid: host}, self.registry, patience)

    def put(self, name: str, script: str = f"echo '{INFO}'", mode: int = 0o755) -> Path:
        path = self.path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(mode)
        return path

    async def look(self) -> set[str]:
        """The types that were found."""
        await self.discovery.look()
        return set(self.registry) - {"dummy"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def test_a_driver_says_what_it_is(folder: Folder) -> None:
    (folder.path / "kit.py").symlink_to(DRIVERS / "kit.py")
    (folder.path / "TestDummySR").write_bytes((DRIVERS / "TestDummySR").read_bytes())
    (folder.path / "TestDummySR").chmod(0o755)
    assert await folder.look() == {"testdummy"}
    info = folder.registry["testdummy"].query()
    assert (info.name, info.vendor, info.version) == ("Dummy of the tests", "tests", "1.0")
    assert info.configuration == {"location": "where it is", "log": "a file that is told of calls"}
    assert info.driver_filename == str(folder.path / "TestDummySR")
    assert (info.features["VDI_RESET_ON_BOOT"], info.features["VDI_MIRROR"]) == (2, 1)
    assert "FLYING" not in info.features


def test_versions_that_are_none_count_as_1() -> None:
    said = ["SR_SCAN", "SR_PROBE/", "SR_UPDATE/0", "SR_TRIM/-3", "SR_STATS/x/y", "VDI_CLONE/4", "WHATEVER/2"]
    assert features("x", said) == {
        **dict.fromkeys(("SR_SCAN", "SR_PROBE", "SR_UPDATE", "SR_TRIM", "SR_STATS"), 1),
        "VDI_CLONE": 4,
    }


async def test_a_broken_driver_is_rejected_alone(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.put("GoodSR")
    folder.put("FailsSR", "exit 1")
    folder.put("GarbageSR", "echo hello")
    folder.put("KilledSR", "kill -9 $$")
    folder.put("PlainSR", mode=0o644)
    folder.put("LacksSR", f"echo '{INFO.replace('vendor', 'seller')}'")
    folder.put(
        "NoneSR", "echo '<methodResponse><params><param><value><nil/></value></param></params></methodResponse>'"
    )
    folder.put("DummySR")
    folder.put("NotADriver")
    (folder.path / "LostSR").symlink_to("nowhere")
    folder.put("SR")
    with caplog.at_level(logging.ERROR):
        assert await folder.look() == {"good"}
    rejected = {record.getMessage().split()[1] for record in caplog.records if "rejected" in record.getMessage()}
    assert rejected == {"Fails", "Garbage", "Killed", "Plain", "Lacks", "None", "Dummy", "Lost"}


async def test_a_driver_that_is_killed_is_asked_again(folder: Folder) -> None:
    folder.put("MetSR", f"[ -e {folder.path}/met ] || {{ touch {folder.path}/met; kill -9 $$; }}\necho '{INFO}'")
    assert await folder.look() == {"met"}


async def test_only_allowed_drivers_are_run(tmp_path: Path) -> None:
    folder = Folder(tmp_path, allowed=("One", "Two"))
    ran = tmp_path / "ran"
    folder.put("OneSR")
    folder.put("ThreeSR", f"touch {ran}; echo '{INFO}'")
    assert await folder.look() == {"one"}
    assert not ran.exists()


async def test_drivers_come_change_and_go_while_the_service_runs(folder: Folder) -> None:
    assert await folder.look() == set()
    path = folder.put("OneSR")
    assert await folder.look() == {"one"}
    first = folder.registry["one"]
    assert await folder.look() == {"one"}
    assert folder.registry["one"] is first
    folder.put("NewSR", f"echo '{INFO.replace('<string>name<', '<string>another<')}'").replace(path)
    assert await folder.look() == {"one"}
    assert folder.registry["one"].query().name == "another"
    os.unlink(path)
    assert await folder.look() == set()


async def test_a_driver_that_hangs_holds_no_other_up_and_is_rejected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path, patience=0.5)
    folder.put("OneSR")
    folder.put("HangsSR", "sleep 300")
    assert await folder.look() == {"one"}
    assert "driver Hangs is rejected: it has not said" in caplog.text
    assert await folder.look() == {"one"}


async def test_two_drivers_of_one_type_are_one_too_many(folder: Folder) -> None:
    folder.put("OneSR")
    folder.put("ONESR")
    assert await folder.look() == {"one"}


def test_types_that_are_left_to_drivers_are_theirs(tmp_path: Path) -> None:
    bundled = DummyPlugin(Journal(tmp_path / "a"))
    registry = Registry({"dummy": bundled}, left=("dummy",))
    assert "dummy" not in registry
    assert registry.add(DummyPlugin(Journal(tmp_path / "b")))
    assert registry["dummy"] is not bundled
