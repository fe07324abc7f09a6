"""Script folders that come, go and change while the service runs."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.journal import Journal
from services.storage.plugins.dummy import DummyPlugin
from services.storage.registry import Registry
from services.storage.smapiv3.discovery import Discovery, Folder, differences, look
from tests.storage.smapiv3.conftest import discovery
from tests.storage.smapiv3.install import QUERY, script, simple_file
from tests.storage.support import HOST_A, MIB, SR, new


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    announced.clear()
    made = Registry({"dummy": DummyPlugin(Journal(tmp_path / "dummy"))}, lambda: announced.append(None))
    made.settled()
    return made


announced: list[None] = []
"""Changes that the API hears of."""


@pytest.fixture
async def found(tmp_path: Path, packages: Path, registry: Registry) -> AsyncIterator[Discovery]:
    """Nothing is there yet, not even the folder to look in."""
    made = discovery(tmp_path / "root", tmp_path, packages, registry)
    await made.start("boot-1", 10.0)
    yield made
    await made.close()
    for plugin in registry.values():
        await plugin.close()


async def settle(found: Discovery) -> None:
    """Two looks, between which nothing changes."""
    await found.refresh()
    await found.refresh()
    await found.answers(10.0)


def volume(root: Path, name: str, text: str = "", version: str = "5.0") -> Path:
    folder = root / "volume" / f"org.xen.xapi.storage.{name}"
    script(folder, "Plugin.Query", QUERY % (text, version, ""))
    return folder


def test_a_folder_is_acted_upon_when_it_has_stood_still() -> None:
    one, other = Folder("volume", "one"), Folder("volume", "other")
    old, new = (("a", 1, 1, 1, 1),), (("a", 2, 1, 1, 1),)
    assert differences({}, {}, {one: old}) == ([], [])
    assert differences({}, {one: old}, {one: new}) == ([], [])
    assert differences({}, {one: new}, {one: new}) == ([one], [])
    assert differences({one: old}, {one: new}, {one: new}) == ([one], [])
    assert differences({one: old}, {one: old}, {one: old}) == ([], [])
    assert differences({one: old, other: old}, {one: old}, {one: old}) == ([], [other])


def test_what_is_no_folder_of_scripts_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "volume/.hidden").mkdir(parents=True)
    (tmp_path / "volume/README").write_text("a file")
    (tmp_path / "volume/one").mkdir()
    (tmp_path / "volume/two").symlink_to("one")
    (tmp_path / "volume/dangling").symlink_to("nowhere")
    assert look(tmp_path).keys() == {Folder("volume", "one"), Folder("volume", "two")}
    (tmp_path / "volume/one/Plugin.Query").symlink_to("not there yet")
    before = look(tmp_path)
    (tmp_path / "volume/one/__pycache__").mkdir()
    assert look(tmp_path) == before


async def test_a_plug_in_comes_changes_and_goes(found: Discovery, registry: Registry, tmp_path: Path) -> None:
    folder = volume(tmp_path / "root", "Late", "first")
    await settle(found)
    assert registry["late"].query().description == "first"
    volume(tmp_path / "root", "Late", "second one")
    await settle(found)
    assert registry["late"].query().description == "second one"
    assert len(announced) == 2
    await settle(found)
    assert len(announced) == 2, "nothing has changed"
    await asyncio.to_thread(shutil.rmtree, folder)
    await settle(found)
    assert "late" not in registry
    assert len(announced) == 3


async def test_one_that_is_there_at_the_start_is_there_at_once(
    tmp_path: Path, packages: Path, registry: Registry
) -> None:
    volume(tmp_path / "root", "early")
    made = discovery(tmp_path / "root", tmp_path, packages, registry)
    await made.start("boot-1", 10.0)
    assert "early" in registry
    await made.close()


async def test_one_that_hangs_holds_nobody_up_and_is_asked_again_when_it_has_changed(
    tmp_path: Path, packages: Path, registry: Registry
) -> None:
    root = tmp_path / "root"
    volume(root, "good")
    script(root / "volume/org.xen.xapi.storage.bad", "Plugin.Query", "#!/bin/sh\nexec sleep 60\n")
    made = discovery(root, tmp_path, packages, registry)
    await made.start("boot-1", 0.3)
    await made.answers(0.3)
    assert "bad" not in registry
    assert "good" in registry
    volume(root, "bad")
    await settle(made)
    assert "bad" in registry
    await made.close()


async def test_one_that_is_killed_is_asked_again(found: Discovery, registry: Registry, tmp_path: Path) -> None:
    folder = volume(tmp_path / "root", "met")
    killed = f"[ -e {tmp_path}/met ] || {{ touch {tmp_path}/met; kill -9 $$; }}\n"
    script(folder, "Plugin.Query", (QUERY % ("", "5.0", "")).replace("\n", f"\n{killed}", 1))
    await settle(found)
    assert "met" in registry
    assert (tmp_path / "met").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\necho garbage\n", "SCRIPT_FAILED"),
        ("#!/bin/sh\nkill -9 $$\n", "signalled"),
        ('#!/bin/sh\necho \'{"code": "X", "params": ["no disk"]}\'; exit 1\n', "no disk"),
        (QUERY % ("", "4.0", ""), "needs version '4.0'"),
        ("#!/bin/sh\necho '{}'\n", "SCRIPT_RETURNED_RPC_ERROR"),
    ],
)
async def test_a_broken_one_is_said_once_with_the_reason(
    found: Discovery, registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, reason: str
) -> None:
    volume(tmp_path / "root", "broken")
    await settle(found)
    script(tmp_path / "root/volume/org.xen.xapi.storage.broken", "Plugin.Query", text)
    for _ in range(3):
        await settle(found)
    assert "broken" not in registry, "it was good before"
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1
    assert reason in said[0]


async def test_a_type_that_comes_with_the_service_is_not_replaced(
    found: Discovery, registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = volume(tmp_path / "root", "dummy")
    script(tmp_path / "root/volume/unknown", "Plugin.Query", QUERY % ("", "5.0", ""))
    await settle(found)
    assert isinstance(registry["dummy"], DummyPlugin)
    assert set(registry) == {"dummy"}
    assert "another plug-in is the SR type dummy" in caplog.text
    assert "unknown is no SR type" in caplog.text
    await asyncio.to_thread(shutil.rmtree, folder)
    await settle(found)
    assert "dummy" in registry


async def test_a_datapath_is_one_for_each_name_it_has(found: Discovery, tmp_path: Path) -> None:
    folder = tmp_path / "root/datapath/raw+file"
    script(folder, "Plugin.Query", QUERY % ("", "5.0", ""))
    os.symlink("raw+file", folder.parent / "vhd+file")
    await settle(found)
    assert found.schemes.choose(["tape:///1", "vhd+file:///2", "raw+file:///3"]) == "vhd+file:///2"
    os.unlink(folder.parent / "vhd+file")
    await settle(found)
    assert found.schemes.choose(["tape:///1", "vhd+file:///2", "raw+file:///3"]) == "raw+file:///3"


async def test_an_sr_stays_usable_while_its_plug_in_is_replaced(
    found: Discovery, registry: Registry, tmp_path: Path
) -> None:
    folder = simple_file(tmp_path / "root")
    await settle(found)
    plugin = registry["simple-file"]
    configuration = await plugin.sr.create(SR, {"location": str(tmp_path / "sr")}, "", "")
    handle = await plugin.sr.attach(SR, configuration, HOST_A)
    away = tmp_path / "away"
    folder.rename(away)
    await settle(found)
    assert "simple-file" not in registry
    away.rename(folder)
    await settle(found)
    assert registry["simple-file"] is plugin
    made = await plugin.volume.create(handle, new(), MIB)
    assert await plugin.sr.ls(handle) == [made]
    await plugin.sr.detach(handle)
