"""Mount namespaces of drivers: what they see, what others see of it, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.api.host_side.plugins import Programs
from services.storage.plugins.interface import Domain
from services.storage.smapiv1 import mounts, process
from services.storage.smapiv1.private_view import PrivateView
from services.storage.smapiv1.view import SystemView
from shared import driver_view
from shared.contracts.host import PluginCall
from tests.api.harness import error_of
from tests.storage.smapiv1.conftest import MIB, Bench, Socket, disk

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces are root's"),
]


def view(folder: Path, socket: str = "/run/some.sock", drivers: str = "/opt/xensource/sm") -> PrivateView:
    return PrivateView(folder, socket, drivers, SystemView(folder / "state"))


def below(folder: Path) -> list[str]:
    return [point for point, _ in driver_view.mounted() if point.startswith(str(folder))]


def ended(pid: int) -> bool:
    """Within a few seconds; a killed one that nobody has waited for yet counts."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.005)
    return False


async def inside(where: PrivateView, script: str) -> str:
    ended = await process.run(where.command(["/bin/sh", "-c", script]), {"PATH": os.environ["PATH"]})
    assert not ended.trouble, ended.stderr
    return ended.stdout


@pytest_asyncio.fixture(loop_scope="module")
async def one(tmp_path: Path) -> AsyncIterator[PrivateView]:
    made = view(tmp_path / "one", "/run/one.sock")
    await made.open()
    yield made
    await made.close()


async def test_hosts_of_one_machine_each_see_their_own_files(one: PrivateView, tmp_path: Path) -> None:
    other = view(tmp_path / "other", "/run/other.sock")
    await other.open()
    for where, name in ((one, "one"), (other, "other")):
        where.describe({"INSTALLATION_UUID": name, "CONTROL_DOMAIN_UUID": "d"})
        await inside(where, f"echo {name} > /run/sr-mount/who; mkdir -p /run/lock/sm/ns; echo {name} > /dev/sm/who")
    for where, name in ((one, "one"), (other, "other")):
        seen = await inside(
            where, "cat /etc/xensource-inventory /run/sr-mount/who /dev/sm/who; readlink /var/lib/xcp/xapi"
        )
        assert seen.split() == [
            *(f"INSTALLATION_UUID='{name}'", "CONTROL_DOMAIN_UUID='d'", name, name, f"/run/{name}.sock"),
        ]
    await other.close()


async def test_the_machine_is_as_it_was_but_for_empty_places(one: PrivateView) -> None:
    await inside(one, "touch /run/sr-mount/mine /var/lib/xcp/mine; mount -t tmpfs none /run/sr-mount/")
    for path in ("/run/sr-mount", "/var/lib/xcp", "/usr/share/sm"):
        assert os.listdir(path) == []
    assert shutil.which("cgclassify") != "/usr/bin/cgclassify"


async def test_drivers_have_programs_and_tables_that_the_machine_lacks(one: PrivateView) -> None:
    assert len(await inside(one, "/usr/bin/uuidgen")) == 37
    assert "<name>VDIUnavailable</name>" in await inside(one, "cat /usr/share/sm/XE_SR_ERRORCODES.xml")


async def test_what_a_driver_mounts_is_seen_outside_where_the_view_says(one: PrivateView) -> None:
    await inside(
        one, "mkdir /run/sr-mount/sr && mount -t tmpfs none /run/sr-mount/sr && echo data > /run/sr-mount/sr/disk"
    )
    await inside(one, "mkdir -p /run/blktap-control/nbd/sr; ln -s /run/sr-mount/sr/disk /run/blktap-control/nbd/sr/vdi")
    for name in ("/run/sr-mount/sr/disk", "/var/run/sr-mount/sr/disk", "/run/blktap-control/nbd/sr/vdi"):
        outside = one.outside(name)
        assert outside != name
        assert await asyncio.to_thread(Path(outside).read_text) == "data\n"
    assert one.outside("/etc/hostname") == "/etc/hostname"


async def test_a_killed_service_finds_its_namespace_again(one: PrivateView, tmp_path: Path) -> None:
    await inside(one, "mkdir /run/sr-mount/sr && mount -t tmpfs none /run/sr-mount/sr && touch /run/sr-mount/sr/here")
    again = view(tmp_path / "one")
    await again.open()
    assert await inside(again, "ls /run/sr-mount/sr") == "here\n"


async def test_half_of_a_namespace_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    folder.mkdir()
    mounts.memory(folder)
    (folder / "run").mkdir()
    mounts.share(folder / "run")
    whole = view(folder)
    await whole.open()
    assert "sr-mount" in await inside(whole, "ls /run")
    await whole.close()
    assert below(folder) == []


async def test_nothing_is_left_of_a_view_that_is_closed_whatever_was_mounted(tmp_path: Path) -> None:
    folder = tmp_path / "view"
    made = view(folder)
    await made.open()
    await inside(
        made, "mkdir /run/sr-mount/a && mount -t tmpfs none /run/sr-mount/a && sleep 300 < /run/sr-mount/a & echo"
    )
    [pid] = (await inside(made, "pgrep -f '^sleep 300$' --ns $$ --nslist mnt")).split()
    await made.close()
    assert below(folder) == []
    assert not folder.exists()
    assert await asyncio.to_thread(ended, int(pid))


async def test_a_stopped_pools_views_are_cleaned_up(tmp_path: Path) -> None:
    for host in ("aaaaaaaa-1", "bbbbbbbb-2"):
        made = view(driver_view.folder(tmp_path, host))
        await made.open()
        await inside(made, "mkdir /run/sr-mount/a && mount -t tmpfs none /run/sr-mount/a")
        assert driver_view.is_kept(driver_view.namespace(tmp_path, host))
    command = [sys.executable, "-m", "services.storage.smapiv1.cleanup", "--run-dir", str(tmp_path)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    assert below(tmp_path) == []
    assert not (tmp_path / driver_view.FOLDER).exists()


async def test_without_namespaces_drivers_use_the_machines_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(mounts, "memory", refused)
    made = view(tmp_path / "view")
    await made.open()
    assert made.command(["x"]) == ["x"]
    assert made.outside("/run/sr-mount/a") == "/run/sr-mount/a"
    assert "share the machine's paths" in caplog.text


# ---- with drivers


@pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="qemu-nbd is not installed")
async def test_a_disk_that_a_driver_mounts_and_serves_is_read_and_written_from_outside(
    bench: Bench, tmp_path: Path
) -> None:
    bench.begin(private=True)
    plugin, sr, _ = await bench.attached("testfile", location=str(tmp_path / "medium"))
    made = await disk(plugin, sr, size=4 * MIB)
    domain = Domain(host=bench.host.uuid, dp="vbd/vm/0")
    attached = await plugin.datapath.attach(made.uri[0], domain)
    await plugin.datapath.activate(made.uri[0], domain)
    found = await plugin.datapath.located(made.uri[0], domain, attached)
    assert (found.kind, found.format) == ("nbd", "raw")
    socket, _, export = found.path.removeprefix("nbd:unix:").partition(":exportname=")
    assert export == made.uuid
    write = ["qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", f"nbd+unix:///{export}?socket={socket}"]
    await asyncio.to_thread(subprocess.run, write, check=True, stdout=subprocess.DEVNULL)
    [image] = (tmp_path / "medium").glob("*/*.raw")
    assert (await asyncio.to_thread(image.read_bytes))[:65536] == bytes([7]) * 65536
    await plugin.datapath.deactivate(made.uri[0], domain)
    await plugin.datapath.detach(made.uri[0], domain)
    await plugin.volume.destroy(sr, made.key)
    await plugin.sr.destroy(sr)
    await bench.host.close()
    assert below(tmp_path) == []


async def test_a_service_that_stops_keeps_what_is_attached(bench: Bench, tmp_path: Path) -> None:
    bench.begin(private=True)
    plugin, sr, _ = await bench.attached("testfile", location=str(tmp_path / "medium"))
    await bench.host.close()
    assert any(point.endswith("sr-mount/" + str(sr).split()[1]) for point in below(tmp_path))
    await plugin.sr.detach(sr)
    await bench.host.close()
    assert below(tmp_path) == []


PLUGIN = """#!/usr/bin/env -S python3 -S
import XenAPIPlugin

def look(session, args):
    if args["path"] == "bad":
        raise XenAPIPlugin.Failure("VM_HALTED", ["x"])
    with open(args["path"]) as file:
        return f"{session.xenapi.pool.get_all()[0]} {file.read()}"

XenAPIPlugin.dispatch({"look": look})
"""


async def test_plugins_that_drivers_call_see_what_drivers_see(api: Socket, one: PrivateView, tmp_path: Path) -> None:
    await inside(one, "echo -n mounted > /run/sr-mount/what")
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "tapdisk-pause").write_text(PLUGIN)
    (folder / "tapdisk-pause").chmod(0o755)
    programs = Programs(folder, folder, str(api.site.socket), 20, tmp_path / "one" / "ns")

    async def look(path: str, function: str = "look") -> str:
        arguments = {"path": path}
        request = PluginCall(plugin="tapdisk-pause", function=function, arguments=arguments, session=api.client.session)
        return (await programs.call_plugin(request)).text

    assert await look("/run/sr-mount/what") == f"{next(iter(api.pool.store.rows('pool')))} mounted"
    assert await error_of(look("bad")) == ["VM_HALTED", "x"]
    assert (await error_of(look("/nowhere")))[0] == "XENAPI_PLUGIN_FAILURE"
    assert await error_of(look("", "jump")) == ["UNKNOWN_XENAPI_PLUGIN_FUNCTION", "jump"]
