"""Builds the guest, once for each version of its recipe."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pool.guest import initramfs, kernel_modules
from pool.guest.kernel_modules import ModuleError
from pool.guest.packages import PackageError, Packages, Say

DEFAULT_OUTPUT = Path(__file__).resolve().parents[2] / ".cache" / "guest"
KERNEL, INITRAMFS = "tiny-guest-vmlinuz", "tiny-guest-initramfs.gz"
ARGS = "console=ttyS0 quiet mitigations=off nokaslr cryptomgr.notests i8042.noaux no_timer_check"
"""Kernel arguments of the bundled template: what they leave out saves a quarter of the time to login without KVM."""

_KERNEL_PACKAGE, _KERNEL_DEPENDENCY = "linux-image-cloud-amd64", r"linux-image-\d[^\s,()]*"
_BUSYBOX_PACKAGE = "busybox-static"


class GuestBuildError(Exception):
    """The guest cannot be built; the text says why."""


@dataclass(frozen=True)
class GuestFiles:
    """Absolute paths, the same for every version: a template that names them stays right after `--refresh`."""

    kernel: Path
    initramfs: Path


def find(output: Path = DEFAULT_OUTPUT) -> GuestFiles | None:
    """What `build` left there, if it is of this version."""
    files = GuestFiles(output.absolute() / KERNEL, output.absolute() / INITRAMFS)
    for link in (files.kernel, files.initramfs):
        if not link.is_file() or link.resolve().parent.name != _version():
            return None
    return files


def build(output: Path = DEFAULT_OUTPUT, say: Say = lambda _: None, *, refresh: bool = False) -> GuestFiles:
    """Builds what is missing. Several may call it at once: one works, the others wait. Raises `GuestBuildError`."""
    if platform.machine() != "x86_64":
        raise GuestBuildError(f"the bundled guest is for x86-64 machines, this one is {platform.machine()}")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with _alone(output, say):
            files = None if refresh else find(output)
            if files is None:
                with tempfile.TemporaryDirectory(prefix="build-", dir=output) as work:
                    _make(Path(work), output, say)
                files = find(output)
            else:
                say("already built")
    except (PackageError, ModuleError) as error:
        raise GuestBuildError(str(error)) from error
    except OSError as error:
        raise GuestBuildError(f"{error.filename or output}: {error.strerror}") from error
    if files is None:
        raise GuestBuildError(f"{output} was changed while it was being written")
    return files


def _version() -> str:
    """Names the recipe, not the packages: a machine without a network keeps what it has."""
    return hashlib.sha256(initramfs.recipe()).hexdigest()[:12]


def _make(work: Path, output: Path, say: Say) -> None:
    packages = Packages(work, say)
    packages.prepare(_KERNEL_PACKAGE)
    kernel_package = packages.dependency(_KERNEL_PACKAGE, _KERNEL_DEPENDENCY)
    say(f"downloading {kernel_package} and {_BUSYBOX_PACKAGE}")
    kernel_root = packages.unpack(kernel_package)
    busybox = packages.unpack(_BUSYBOX_PACKAGE)
    say("making the initramfs")
    found = kernel_modules.find(kernel_root)
    made = work / "made"
    made.mkdir()
    shutil.copyfile(_only(kernel_root, "**/boot/vmlinuz-*"), made / KERNEL)
    image = initramfs.image(_only(busybox, "**/bin/busybox").read_bytes(), _modules(found))
    (made / INITRAMFS).write_bytes(image)
    made.chmod(0o755)
    _publish(made, output)
    say(f"built from {kernel_package}: kernel {_mb(made, output, KERNEL)} MB, initramfs {len(image) / 1e6:.1f} MB")


def _mb(made: Path, output: Path, name: str) -> str:
    return f"{(output / name).stat().st_size / 1e6:.0f}"


def _modules(found: dict[str, Path]) -> list[tuple[str, bytes]]:
    content: dict[str, bytes] = {}

    def depends(name: str) -> list[str]:
        if name not in found:
            raise ModuleError(f"the kernel's package has no module {name}")
        content[name] = kernel_modules.read(found[name])
        return kernel_modules.dependencies(content[name])

    return [(name, content[name]) for name in kernel_modules.load_order(initramfs.MODULES, depends)]


def _only(root: Path, pattern: str) -> Path:
    matches = list(root.glob(pattern))
    if len(matches) != 1:
        raise PackageError(f"{root.name} has {len(matches)} files like {pattern}")
    return matches[0]


def _publish(made: Path, output: Path) -> None:
    """A version's folder is complete or absent, and the links change one at a time, last."""
    folder = output / _version()
    if folder.exists():
        shutil.rmtree(folder)
    made.rename(folder)
    for name in (KERNEL, INITRAMFS):
        fresh = output / f".{name}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path(folder.name) / name)
        fresh.rename(output / name)
    for other in output.iterdir():
        if other.is_dir() and len(other.name) == len(folder.name) and other.name != folder.name:
            shutil.rmtree(other)


@contextmanager
def _alone(output: Path, say: Say) -> Iterator[None]:
    descriptor = os.open(output / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
