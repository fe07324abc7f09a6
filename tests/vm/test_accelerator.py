"""Whether KVM is used. QEMU is a shell script here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.vm.qemu import accelerator
from services.vm.qemu.accelerator import INITRAMFS, KERNEL, choose
from services.vm.qemu.program import ProgramError

VERSION = 'case "$1" in --version) echo "QEMU emulator version 9.9.9"; exit;; esac\n'


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a guest, on a machine whose /dev/kvm opens."""
    monkeypatch.setattr(accelerator, "_obstacle", lambda: "")
    monkeypatch.setattr(accelerator, "PROBE_TIMEOUT", 0.5)
    for name in (KERNEL, INITRAMFS):
        (tmp_path / name).write_text("")
    return tmp_path


def program(machine: Path, body: str) -> str:
    """Counts its starts."""
    path = machine / "qemu"
    path.write_text(f"#!/bin/sh\n{VERSION}echo x >> {machine}/starts\n{body}\n")
    path.chmod(0o755)
    return str(path)


def starts(machine: Path) -> int:
    return len((machine / "starts").read_text().split()) if (machine / "starts").exists() else 0


async def test_kvm_that_brings_a_guest_up_is_used_and_tried_once(machine: Path) -> None:
    binary = program(machine, "echo 'tiny-guest: probe ok'; sleep 5")
    for _ in range(2):
        chosen = await choose("auto", binary, machine, machine / "verdict")
        assert (chosen.name, chosen.why) == ("kvm", "a Linux guest came up with KVM")
    assert starts(machine) == 1


async def test_kvm_under_which_a_guest_hangs_is_not_used(machine: Path) -> None:
    chosen = await choose("auto", program(machine, "echo Probing EDD; exec sleep 60"), machine, machine / "verdict")
    assert chosen.name == "tcg"
    assert "no end after" in chosen.why


async def test_kvm_that_qemu_cannot_use_is_not_used(machine: Path) -> None:
    binary = program(machine, "echo 'failed to initialize kvm: Permission denied'; exit 1")
    chosen = await choose("auto", binary, machine, machine / "verdict")
    assert chosen.name == "tcg"
    assert "Permission denied" in chosen.why


async def test_services_that_share_the_verdict_try_once(machine: Path) -> None:
    binary = program(machine, "sleep 0.2; echo 'tiny-guest: probe ok'")
    chosen = await asyncio.gather(*(choose("auto", binary, machine, machine / "verdict") for _ in range(4)))
    assert {one.name for one in chosen} == {"kvm"}
    assert starts(machine) == 1


async def test_a_verdict_holds_until_the_next_boot(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = program(machine, "echo 'tiny-guest: probe ok'")
    await choose("auto", binary, machine, machine / "verdict")
    monkeypatch.setattr(accelerator, "boot_id", lambda: "the next one")
    await choose("auto", binary, machine, machine / "verdict")
    assert starts(machine) == 2


async def test_a_damaged_verdict_is_made_again(machine: Path) -> None:
    (machine / "verdict").write_text('{"boot": "half')
    assert (
        await choose("auto", program(machine, "echo 'tiny-guest: probe ok'"), machine, machine / "verdict")
    ).name == ("kvm")


async def test_a_verdict_that_cannot_be_kept_is_made_all_the_same(machine: Path) -> None:
    (machine / "file").write_text("")
    binary = program(machine, "echo 'tiny-guest: probe ok'")
    assert (await choose("auto", binary, machine, machine / "file" / "verdict")).name == "kvm"


async def test_without_a_guest_to_try_there_is_no_kvm(machine: Path) -> None:
    (machine / KERNEL).unlink()
    chosen = await choose("auto", "qemu", machine, machine / "verdict")
    assert chosen.name == "tcg"
    assert "no bundled guest" in chosen.why


async def test_kvm_that_is_demanded_and_not_there_is_an_error(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "_obstacle", lambda: "there is no /dev/kvm")
    with pytest.raises(ProgramError, match="there is no /dev/kvm"):
        await choose("kvm", "qemu", machine, machine / "verdict")
    assert (await choose("tcg", "qemu", machine, machine / "verdict")).name == "tcg"
