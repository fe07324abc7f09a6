"""td-util, vhd-util, cbt-util: what they print, in which order, and what they do to files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from services.storage.formats.cbt import new_log, parse_log
from services.storage.formats.vhd import change
from services.storage.formats.vhd.chain import Chain
from services.storage.formats.vhd.files import OsFile
from services.storage.formats.vhd.image import Image
from services.storage.smapiv1.shims import cbt_util, journal, td_util, vhd_util
from services.storage.smapiv1.view import OVER, environment

MIB = 1 << 20
MAINS = {"td-util": td_util.main, "vhd-util": vhd_util.main, "cbt-util": cbt_util.main}
Tool = Callable[..., str]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Tool:
    """Runs one in `tmp_path`, as drivers stand in an SR's folder; what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(program: str, *words: object, status: int = 0) -> str:
        capsysbinary.readouterr()
        ended = MAINS[program]([program, *(str(word) for word in words)])
        said = capsysbinary.readouterr()
        assert ended == status, said
        return (said.out if status == 0 else said.err).decode("latin-1")

    return run


def write(path: Path, offset: int, data: bytes) -> None:
    with Chain.open(str(path), writable=True) as disk:
        disk.write(offset, data)
        disk.flush()


def test_they_are_programs_on_the_drivers_path(tmp_path: Path) -> None:
    for name, words in {
        "td-util": ["create", "vhd", "4", "a.vhd"],
        "vhd-util": ["query", "--debug", "-v", "-n", "a.vhd"],
        "cbt-util": ["create", "-n", "log", "-s", "1"],
        "tap-ctl": ["-h"],
    }.items():
        ended = subprocess.run([name, *words], cwd=tmp_path, env=environment(""), capture_output=True, text=True)
        assert ended.returncode == (errno.EINVAL if name == "tap-ctl" else 0), ended
        assert ended.stdout == ("4\n" if name == "vhd-util" else "")
    assert (tmp_path / "log").exists()
    bare = subprocess.run(
        [f"{OVER}/usr/bin/vhd-util", "query", "-v", "-n", "a.vhd"], cwd=tmp_path, env={}, capture_output=True
    )
    assert bare.stdout == b"4\n"
    assert sys.version_info >= (3, 11)


def test_a_query_answers_in_a_fixed_order(tool: Tool, tmp_path: Path) -> None:
    tool("vhd-util", "create", "--debug", "-n", "base.vhd", "-s", 9, "-S", 100)
    write(tmp_path / "base.vhd", 0, b"x" * 512)
    tool("vhd-util", "snapshot", "--debug", "-n", "leaf.vhd", "-p", "base.vhd")
    tool("vhd-util", "set", "--debug", "-n", "base.vhd", "-f", "hidden", "-v", "1")
    tool("vhd-util", "set", "-n", "base.vhd", "-f", "marker", "-v", "7")
    size = (tmp_path / "base.vhd").stat().st_size
    assert tool("vhd-util", "query", "-Samdfpsv", "-n", "base.vhd").splitlines() == [
        *("10", str(size), "base.vhd has no parent", "hidden: 1", "marker: 7", "chain depth: 1", "1", "100")
    ]
    assert tool("vhd-util", "query", "--debug", "-vsafp", "-n", "leaf.vhd").splitlines()[2:] == [
        *(f"{tmp_path}/base.vhd", "hidden: 0", "0")
    ]
    assert tool("vhd-util", "query", "-d", "-n", "leaf.vhd") == "chain depth: 2\n"
    assert tool("td-util", "query", "vhd", "-vpfb", "leaf.vhd") == f"10\n{tmp_path}/base.vhd\nhidden: 0\n"
    assert tool("td-util", "query", "vhd", "-p", "base.vhd") == "base.vhd has no parent\n"
    os.unlink("base.vhd")
    tool("vhd-util", "query", "-p", "-n", "leaf.vhd", status=errno.EINVAL)
    tool("td-util", "query", "vhd", "-v", "none.vhd", status=errno.ENOENT)


def test_td_util_takes_the_parents_name_beside_the_child(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "sr").mkdir()
    tool("td-util", "create", "vhd", 4, "sr/base.vhd")
    write(tmp_path / "sr" / "base.vhd", MIB, b"y" * 512)
    tool("td-util", "snapshot", "vhd", tmp_path / "sr" / "leaf.vhd", "base.vhd")
    tool("td-util", "snapshot", "vhd", "sr/other.vhd", "sr/base.vhd")
    for name in ("leaf", "other"):
        with Chain.open(str(tmp_path / "sr" / f"{name}.vhd")) as disk:
            assert disk.read(MIB, 512) == b"y" * 512
    tool("td-util", "snapshot", "vhd", "sr/none.vhd", "missing.vhd", status=errno.ENOENT)
    assert not (tmp_path / "sr" / "none.vhd").exists()
    assert "TYPE" in tool("td-util", "create", "qcow2", 4, "x", status=errno.EINVAL)
    tool("td-util", "create", "vhd", 3 << 20, "huge.vhd", status=errno.EINVAL)


def test_a_snapshot_of_an_image_without_blocks_stands_on_what_that_stands_on(tool: Tool, tmp_path: Path) -> None:
    tool("vhd-util", "create", "-n", "base.vhd", "-s", 4)
    write(tmp_path / "base.vhd", 0, b"b" * 512)
    tool("vhd-util", "snapshot", "-n", "empty.vhd", "-p", "base.vhd")
    tool("vhd-util", "resize", "-n", "empty.vhd", "-s", 8, "-j", "journal")
    tool("vhd-util", "snapshot", "-n", "leaf.vhd", "-p", "empty.vhd")
    assert tool("vhd-util", "query", "-vp", "-n", "leaf.vhd") == f"8\n{tmp_path}/base.vhd\n"
    tool("vhd-util", "snapshot", "-n", "kept.vhd", "-p", "empty.vhd", "-e")
    assert tool("vhd-util", "query", "-p", "-n", "kept.vhd") == f"{tmp_path}/empty.vhd\n"
    tool("vhd-util", "snapshot", "-n", "deep.vhd", "-p", "kept.vhd", "-e", "-l", 3, status=errno.ENOSPC)
    (tmp_path / "raw").write_bytes(b"r" * 512 + bytes(4 * MIB - 512))
    tool("vhd-util", "snapshot", "-n", "onraw.vhd", "-p", "raw", "-m")
    assert tool("vhd-util", "query", "-vpd", "-n", "onraw.vhd") == f"4\n{tmp_path}/raw\nchain depth: 2\n"


def test_a_scan_has_a_line_for_each_image(tool: Tool, tmp_path: Path) -> None:
    tool("td-util", "create", "vhd", 4, "base.vhd")
    write(tmp_path / "base.vhd", 0, b"b" * 512)
    tool("vhd-util", "set", "-n", "base.vhd", "-f", "hidden", "-v", "1")
    tool("td-util", "snapshot", "vhd", "leaf.vhd", "base.vhd")
    sizes = {name: os.path.getsize(f"{name}.vhd") for name in ("base", "leaf")}
    lines = [
        f"vhd=base.vhd capacity={4 * MIB} size={sizes['base']} hidden=1 parent=none",
        f"vhd=leaf.vhd capacity={4 * MIB} size={sizes['leaf']} hidden=0 parent=base.vhd",
    ]
    assert tool("vhd-util", "scan", "-f", "-m", f"{tmp_path}/*.vhd").splitlines() == lines
    assert tool("vhd-util", "scan", "-f", "-m", "leaf*").splitlines() == lines[1:]
    assert tool("vhd-util", "scan", "-f", "-a", "-m", "leaf*").splitlines() == [lines[1], lines[0]]
    assert "parent=" + str(tmp_path) in tool("vhd-util", "scan", "-f", "-v", "-m", f"{tmp_path}/leaf*")
    assert tool("vhd-util", "scan", "-f", "-m", "nothing*") == ""
    (tmp_path / "bad.vhd").write_bytes(bytes(4096))
    tool("vhd-util", "scan", "-f", "-m", "*.vhd", status=errno.EINVAL)
    found = tool("vhd-util", "scan", "-f", "-c", "-m", "*.vhd").splitlines()
    assert found[0].startswith("vhd=bad.vhd scan-error=-22 error-message='")
    assert found[1:] == lines


LVM = {
    "vgs": "  1048576",
    "pvs": "  {pv}|65536|VG\n  /dev/other|65536|OTHER",
    "lvs": """  VHD-base|linear|0|4194304|{pv}(5)
  VHD-leaf|linear|1048576|3145728|{pv}(1)
  VHD-leaf|linear|0|1048576|{pv}(0)
  MGT|linear|0|1048576|{pv}(4)
  VHD-thin|thin|0|4194304|
""",
}
"""What LVM reports, by program."""


def test_a_scan_reads_volumes_that_are_not_active(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs, device = tmp_path / "bin", tmp_path / "pv"
    programs.mkdir()
    for name, report in LVM.items():
        (programs / name).write_text(f"#!/bin/sh\ncat <<'EOF'\n{report.format(pv=device)}\nEOF\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    tool("vhd-util", "create", "-n", "VHD-base", "-s", 2)
    write(tmp_path / "VHD-base", 0, b"b" * 512)
    tool("vhd-util", "set", "-n", "VHD-base", "-f", "hidden", "-v", "1")
    tool("vhd-util", "snapshot", "-n", "VHD-leaf", "-p", "VHD-base")
    base, leaf = ((tmp_path / name).read_bytes() for name in ("VHD-base", "VHD-leaf"))
    for name in ("VHD-base", "VHD-leaf"):
        os.unlink(name)
    extents = leaf.ljust(4 * MIB, b"\0") + bytes(MIB) + base.ljust(4 * MIB, b"\0")
    device.write_bytes(bytes(65536) + extents)
    lines = [
        f"vhd=VHD-base capacity={2 * MIB} size={4 * MIB} hidden=1 parent=none",
        f"vhd=VHD-leaf capacity={2 * MIB} size={4 * MIB} hidden=0 parent=VHD-base",
    ]
    assert tool("vhd-util", "scan", "-f", "-l", "VG", "-m", "VHD-*").splitlines() == lines
    assert tool("vhd-util", "scan", "-f", "-l", "VG", "-m", "VHD-leaf", "-a").splitlines() == [lines[1], lines[0]]
    tool("vhd-util", "scan", "-f", "-l", "VG", "-m", "MGT", status=errno.EINVAL)


def test_a_coalesced_child_is_in_its_parent(tool: Tool, tmp_path: Path) -> None:
    tool("td-util", "create", "vhd", 8, "base.vhd")
    write(tmp_path / "base.vhd", 0, b"b" * 4096)
    tool("td-util", "snapshot", "vhd", "middle.vhd", "base.vhd")
    write(tmp_path / "middle.vhd", 1024, b"m" * 2048)
    tool("td-util", "snapshot", "vhd", "leaf.vhd", "middle.vhd")
    write(tmp_path / "leaf.vhd", 5 * MIB, b"l" * 512)
    with Chain.open("leaf.vhd") as disk:
        before = disk.read(0, disk.size)
    for _ in range(2):
        assert tool("vhd-util", "coalesce", "--debug", "-n", "middle.vhd").startswith("Coalesced 4 sectors")
    tool("vhd-util", "modify", "--debug", "-p", f"{tmp_path}/base.vhd", "-n", "leaf.vhd")
    os.unlink("middle.vhd")
    with Chain.open("leaf.vhd") as disk:
        assert disk.read(0, disk.size) == before
        assert [os.path.basename(path) for path in disk.paths] == ["leaf.vhd", "base.vhd"]
    tool("vhd-util", "coalesce", "-n", "base.vhd", status=errno.EINVAL)
    tool("vhd-util", "modify", "-p", "leaf.vhd", "-n", "leaf.vhd", status=errno.EINVAL)


def test_data_can_be_killed_and_the_footer_moved(tool: Tool, tmp_path: Path) -> None:
    tool("td-util", "create", "vhd", 8, "a.vhd")
    write(tmp_path / "a.vhd", 0, b"b" * 4096)
    size = os.path.getsize("a.vhd")
    tool("vhd-util", "modify", "-s", size + 8192, "-n", "a.vhd")
    assert os.path.getsize("a.vhd") == size + 8192
    assert tool("vhd-util", "check", "-n", "a.vhd") == "a.vhd is valid\n"
    tool("vhd-util", "modify", "-s", 4096, "-n", "a.vhd", status=errno.EINVAL)
    tool("vhd-util", "modify", "--debug", "-z", "-n", "a.vhd")
    assert tool("vhd-util", "query", "-a", "-n", "a.vhd") == "0\n"
    assert os.path.getsize("a.vhd") < MIB


def test_a_resize_has_a_journal_that_takes_it_back(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    tool("td-util", "create", "vhd", 8, "a.vhd")
    write(path, 7 * MIB, b"b" * 4096)
    tool("vhd-util", "resize", "-n", "a.vhd", "-s", 64, "-f", status=errno.EINVAL)
    tool("vhd-util", "resize", "-n", "a.vhd", "-s", 64, "-j", ".journal-a", "-f", status=errno.EINVAL)
    tool("vhd-util", "resize", "-n", "a.vhd", "-s", 4, "-j", ".journal-a", status=errno.ENOSYS)
    assert not (tmp_path / ".journal-a").exists()
    # a driver that dies after the resize, and one that dies before it
    for grown in (64 * MIB, 8 * MIB):
        with Image.open(OsFile(str(path), writable=True), writable=True) as image:
            journal.begin(".journal-a", image)
            change.resize(image, grown)
        tool("vhd-util", "resize", "-n", "a.vhd", "-s", 100, "-j", ".journal-a", status=errno.EEXIST)
        tool("vhd-util", "revert", "-n", "a.vhd", "-j", ".journal-a")
        assert tool("vhd-util", "query", "-vS", "-n", "a.vhd") == "8\n8\n"
        assert tool("vhd-util", "check", "-n", "a.vhd") == "a.vhd is valid\n"
        assert not (tmp_path / ".journal-a").exists()
    (tmp_path / ".journal-a").write_bytes(b"vhdresz1 torn")
    tool("vhd-util", "revert", "-n", "a.vhd", "-j", ".journal-a")
    tool("vhd-util", "revert", "-n", "a.vhd", "-j", ".journal-a", status=errno.ENOENT)
    tool("vhd-util", "resize", "--debug", "-s", 63, "-n", "a.vhd", "-j", ".journal-a")
    assert tool("vhd-util", "query", "-v", "-n", "a.vhd") == "64\n"
    assert os.listdir(tmp_path) == ["a.vhd"]
    with Chain.open("a.vhd") as disk:
        assert disk.read(7 * MIB, 4096) == b"b" * 4096
        assert not any(disk.read(8 * MIB, 56 * MIB))


def test_a_fixed_disk_is_resized_and_taken_back_too(tool: Tool, tmp_path: Path) -> None:
    tool("vhd-util", "create", "-n", "f.vhd", "-s", 2, "-r")
    write(tmp_path / "f.vhd", MIB, b"f" * 512)
    with Image.open(OsFile("f.vhd", writable=True), writable=True) as image:
        journal.begin("j", image)
        change.resize(image, 4 * MIB)
    tool("vhd-util", "revert", "-n", "f.vhd", "-j", "j")
    assert os.path.getsize("f.vhd") == 2 * MIB + 512
    tool("vhd-util", "resize", "-n", "f.vhd", "-s", 3, "-j", "j")
    assert tool("vhd-util", "check", "-n", "f.vhd") == "f.vhd is valid\n"
    with Chain.open("f.vhd") as disk:
        assert disk.read(MIB, 512) == b"f" * 512


def test_what_is_damaged_is_told_and_repaired(tool: Tool, tmp_path: Path) -> None:
    tool("td-util", "create", "vhd", 8, "a.vhd")
    write(tmp_path / "a.vhd", 0, b"b" * 512)
    size = os.path.getsize("a.vhd")
    os.truncate("a.vhd", size - 512)
    tool("vhd-util", "check", "-n", "a.vhd", status=errno.EINVAL)
    tool("vhd-util", "check", "-i", "-n", "a.vhd")
    tool("vhd-util", "repair", "-n", "a.vhd")
    tool("vhd-util", "check", "-B", "-n", "a.vhd")
    assert os.path.getsize("a.vhd") == size
    (tmp_path / "b.vhd").write_bytes(b"no image" * 1000)
    tool("vhd-util", "check", "-n", "b.vhd", status=errno.EINVAL)
    tool("vhd-util", "query", "-v", "-n", "b.vhd", status=errno.EINVAL)


def test_what_drivers_look_for_in_a_summary(tool: Tool, tmp_path: Path) -> None:
    tool("td-util", "create", "vhd", 20, "base.vhd")
    write(tmp_path / "base.vhd", 18 * MIB, b"b" * 512)
    tool("td-util", "snapshot", "vhd", "leaf.vhd", "base.vhd")
    assert "Disk type           : Dynamic hard disk\n" in tool("vhd-util", "read", "-p", "-n", "base.vhd")
    said = tool("vhd-util", "read", "--debug", "-p", "-n", "leaf.vhd")
    assert "Disk type           : Differencing hard disk\n" in said
    assert "decoded name : ./base.vhd\n" in said or "decoded name : base.vhd\n" in said
    assert tool("vhd-util", "read", "-B", "-n", "base.vhd") == "\x00\x40"
    assert tool("vhd-util", "key", "-p", "-n", "leaf.vhd") == "none\n"
    tool("vhd-util", "key", "-s", "-n", "leaf.vhd", "-H", "00", status=errno.ENOTSUP)


def test_an_encrypted_image_is_named_and_not_written_to(tool: Tool, tmp_path: Path) -> None:
    tool("td-util", "create", "vhd", 4, "a.vhd")
    with Image.open(OsFile("a.vhd")) as image:
        at = image.header.bat_offset + 512 + 29
    with open("a.vhd", "r+b") as file:
        file.seek(at)
        file.write(b"\x01" + bytes(range(32)) + b"\xab" * 32)
    assert tool("vhd-util", "key", "-p", "-n", "a.vhd") == f"{bytes(range(32)).hex()} {'ab' * 32}\n"
    tool("vhd-util", "set", "-n", "a.vhd", "-f", "marker", "-v", "1", status=errno.ENOTSUP)


def test_a_cbt_log_keeps_what_it_is_told(tool: Tool) -> None:
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    tool("cbt-util", "create", "-n", "log", "-s", 100 * 65536)

    def get(field: str) -> str:
        return tool("cbt-util", "get", "-n", "log", field)

    assert (get("-p"), get("-f"), get("-s")) == (f"{uuid.UUID(int=0)}\n", "0\n", f"{100 * 65536}\n")
    tool("cbt-util", "set", "-n", "log", "-p", one)
    tool("cbt-util", "set", "-n", "log", "-c", other)
    tool("cbt-util", "set", "-n", "log", "-f", 1)
    assert (get("-p"), get("-c"), get("-f")) == (f"{one}\n", f"{other}\n", "1\n")
    tool("cbt-util", "set", "-n", "log", "-s", 200 * 65536)
    tool("cbt-util", "set", "-n", "log", "-s", 100 * 65536, status=errno.EINVAL)
    assert get("-b") == "\x00" * 25
    tool("cbt-util", "get", "-n", "log", "-b", "-s", status=errno.EINVAL)
    tool("cbt-util", "set", "-n", "log", "-p", "x", status=errno.EINVAL)
    tool("cbt-util", "get", "-n", "none", "-p", status=errno.ENOENT)


def test_a_coalesced_cbt_log_has_both_changes_and_its_own_links(tool: Tool, tmp_path: Path) -> None:
    parent, child = uuid.uuid4(), uuid.uuid4()
    older = new_log(10 * 65536, parent).marked([(0, 1)])
    newer = new_log(20 * 65536, child, parent).marked([(19 * 65536, 1)])
    (tmp_path / "older").write_bytes(older.pack())
    (tmp_path / "newer").write_bytes(newer.pack())
    tool("cbt-util", "coalesce", "-p", "older", "-c", "newer")
    found = parse_log((tmp_path / "newer").read_bytes())
    assert (found.parent, found.child, found.size) == (child, parent, 20 * 65536)
    assert found.bitmap == bytes([1, 0, 8])
    tool("cbt-util", "coalesce", "-p", "newer", "-c", "older", status=errno.EINVAL)
