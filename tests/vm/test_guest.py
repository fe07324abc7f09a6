"""The builder of the bundled guest."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.guest import GuestBuildError, build, cpio, find
from pool.guest.initramfs import MODULES, image
from pool.guest.kernel_modules import ModuleError, dependencies, load_order


def unpack(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Name to mode and content, by the format's own rules."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        start = at + 110
        name = archive[start : start + numbers[11] - 1].decode()
        content = start + numbers[11] + -(start + numbers[11]) % 4
        if name == "TRAILER!!!":
            return found
        found[name] = (numbers[1], archive[content : content + numbers[6]])
        at = content + numbers[6] + -(content + numbers[6]) % 4


@given(st.dictionaries(st.from_regex(r"[a-z]{1,20}(/[a-z]{1,7})?", fullmatch=True), st.binary(max_size=50), max_size=8))
def test_what_is_archived_can_be_unpacked(files: dict[str, bytes]) -> None:
    archive = cpio.archive(cpio.regular(name, content) for name, content in files.items())
    assert unpack(archive) == {name: (0o100644, content) for name, content in files.items()}


def test_the_initramfs_has_what_it_needs_to_start() -> None:
    files = unpack(gzip.decompress(image(b"busybox", [("virtio", b"module")])))
    assert files["bin/busybox"] == (0o100755, b"busybox")
    assert files["init"][0] == 0o100755
    assert files["lib/modules/order"][1] == b"virtio\n"
    assert files["dev/console"][0] == 0o020600


def test_equal_input_gives_equal_initramfs() -> None:
    assert image(b"busybox", []) == image(b"busybox", [])


def test_modules_load_after_what_they_need() -> None:
    needs = {"blk": ["virtio", "ring"], "virtio": ["ring"], "ring": [], "net": ["failover", "virtio"], "failover": []}
    assert load_order(["blk", "net"], needs.__getitem__) == ["ring", "virtio", "blk", "failover", "net"]


def test_modules_that_need_each_other_are_an_error() -> None:
    with pytest.raises(ModuleError, match="a -> b -> a"):
        load_order(["a"], {"a": ["b"], "b": ["a"]}.__getitem__)


def test_a_module_tells_what_it_needs() -> None:
    names = b"\0.shstrtab\0.modinfo\0"
    info = b"license=GPL\0depends=virtio-ring,virtio\0name=x\0"
    headers = [(0, 0, 0), (1, 64, len(names)), (11, 64 + len(names), len(info))]
    table = 64 + len(names) + len(info)
    elf = b"\x7fELF\x02\x01".ljust(0x28, b"\0") + struct.pack("<Q", table)
    elf = elf.ljust(0x3A, b"\0") + struct.pack("<HHH", 64, 3, 1) + names + info
    for name, offset, size in headers:
        elf += struct.pack("<IIQQQQ", name, 1, 0, 0, offset, size).ljust(64, b"\0")
    assert dependencies(elf) == ["virtio_ring", "virtio"]
    with pytest.raises(ModuleError, match="ELF"):
        dependencies(b"text")


def test_a_built_guest_is_kept(guest_dir: Path) -> None:
    said: list[str] = []
    files = build(guest_dir, said.append)
    assert said == ["already built"]
    assert files == find(guest_dir)
    assert files.kernel.read_bytes()[0x202:0x206] >= b"\x0f\x02"  # boot protocol, Documentation/x86/boot.rst
    names = unpack(gzip.decompress(files.initramfs.read_bytes()))
    assert {f"lib/modules/{name}.ko" for name in MODULES} <= set(names)


def test_a_machine_without_debians_tools_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(GuestBuildError, match="apt-get is not installed"):
        build(tmp_path)
    assert find(tmp_path) is None


def test_a_failed_download_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "apt-cache"):
        (tools / name).write_text("#!/bin/sh\necho 'E: the network is down' >&2\nexit 100\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    output = tmp_path / "guest"
    with pytest.raises(GuestBuildError, match="the network is down"):
        build(output)
    assert {path.name for path in output.iterdir()} == {".lock"}
