"""Whether KVM really runs a guest on this machine.

`/dev/kvm` says little: on some clouds it opens, runs a few instructions, and a stock kernel then hangs before its first
process. So a whole kernel is started, the one that guests will use: the bundled one. It says that it works and powers
off, in about a second where KVM works. The answer is kept until the machine's next boot.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from services.vm.options import AccelChoice
from services.vm.qemu import program
from services.vm.qemu.program import ProgramError
from services.vm.records import boot_id

log = logging.getLogger("vm.qemu")

KERNEL, INITRAMFS = "tiny-guest-vmlinuz", "tiny-guest-initramfs.gz"
"""The bundled guest's files in the guest folder."""
PROBE_ARGS = "console=ttyS0 quiet panic=-1 tiny.probe"
PROBE_TIMEOUT = 8.0
WORKS = b"tiny-guest: probe ok"


@dataclass(frozen=True)
class Accelerator:
    """`name`: kvm | tcg. `why`: for people."""

    name: str
    why: str


class Verdict(msgspec.Struct, frozen=True):
    """`subject`: what was tried; another one has to be tried anew."""

    boot: str
    subject: str
    works: bool
    why: str


async def choose(choice: AccelChoice, binary: str, guest_dir: Path, verdict_file: Path) -> Accelerator:
    """Raises `ProgramError` when kvm is demanded and cannot be had."""
    if choice == "tcg":
        return Accelerator("tcg", "configured")
    obstacle = _obstacle()
    if choice == "kvm":
        if obstacle:
            raise ProgramError(f"accel is configured as kvm, but {obstacle}")
        return Accelerator("kvm", "configured")
    if obstacle:
        return Accelerator("tcg", obstacle)
    kernel, initramfs = guest_dir / KERNEL, guest_dir / INITRAMFS
    if not (kernel.is_file() and initramfs.is_file()):
        return Accelerator("tcg", f"KVM cannot be tried: there is no bundled guest in {guest_dir}")
    verdict = await _verdict(binary, kernel, initramfs, verdict_file)
    return Accelerator("kvm" if verdict.works else "tcg", verdict.why)


def _obstacle() -> str:
    if not Path("/dev/kvm").exists():
        return "there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm cannot be opened by this user"
    return ""


async def _verdict(binary: str, kernel: Path, initramfs: Path, file: Path) -> Verdict:
    """Of services that share the file, one tries and the others wait for it."""
    subject = f"{await program.version(binary)} {_name(kernel)}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("the verdict on KVM cannot be kept: %s", error)
        return Verdict(boot_id(), subject, *await _try(binary, kernel, initramfs))
    try:
        await _lock(descriptor)
        known = _read(descriptor)
        if known is not None and (known.boot, known.subject) == (boot_id(), subject):
            return known
        log.info("trying whether KVM runs a guest")
        works, why = await _try(binary, kernel, initramfs)
        log.info("KVM %s: %s", "works" if works else "does not work", why)
        verdict = Verdict(boot_id(), subject, works, why)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(verdict), 0)
        return verdict
    finally:
        os.close(descriptor)


def _name(kernel: Path) -> str:
    return f"{kernel.resolve()} {kernel.stat().st_mtime_ns}"


async def _lock(descriptor: int) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            await asyncio.sleep(0.1)


def _read(descriptor: int) -> Verdict | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, 65536, 0), type=Verdict)
    except msgspec.DecodeError:
        return None  # empty, or of a process that was killed while it wrote


async def _try(binary: str, kernel: Path, initramfs: Path) -> tuple[bool, str]:
    command = [
        *(binary, "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-machine", "q35,accel=kvm", "-cpu", "host", "-m", "size=128M"),
        *("-kernel", str(kernel), "-initrd", str(initramfs), "-append", PROBE_ARGS),
    ]
    try:
        output = await program.run(command, PROBE_TIMEOUT, until=WORKS)
    except ProgramError as error:
        return False, f"a Linux guest did not come up with KVM: {error}"
    if WORKS.decode() in output:
        return True, "a Linux guest came up with KVM"
    return False, f"a Linux guest did not come up with KVM: {output.strip()[-200:] or 'it said nothing'}"
