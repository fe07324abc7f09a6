"""Which files a direct-boot VM starts from: those of the configured folder, nothing else of the host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shared.contracts.vm import VmSpec
from shared.errors import ApiError

UPSTREAM_FOLDERS = (Path("/var/lib/xcp/guest"), Path("/boot/guest"))
"""Where other toolstacks keep such kernels; names under it mean files of the configured folder."""


@dataclass(frozen=True)
class DirectBoot:
    """`ramdisk`: None for none."""

    kernel: Path
    ramdisk: Path | None
    args: str


def direct_boot(vm: VmSpec, folder: Path) -> DirectBoot:
    """Raises INVALID_VALUE, BOOTLOADER_FAILED."""
    if vm.pv_bootloader:
        raise ApiError("BOOTLOADER_FAILED", vm.ref, f"there is no bootloader {vm.pv_bootloader!r} on this host")
    ramdisk = _allowed("ramdisk", vm.pv_ramdisk, folder) if vm.pv_ramdisk else None
    return DirectBoot(_allowed("kernel", vm.pv_kernel, folder), ramdisk, vm.pv_args)


def _allowed(field: str, name: str, folder: Path) -> Path:
    """The file itself. Links are followed first, so that none leads out of the folder."""

    def refuse(why: str) -> ApiError:
        return ApiError("INVALID_VALUE", field, name, why)

    if not name:
        raise refuse("the VM boots directly and names no kernel")
    if "\0" in name:
        raise refuse("it is no file name")
    given = Path(name)
    for upstream in UPSTREAM_FOLDERS:
        if given.is_relative_to(upstream):
            given = given.relative_to(upstream)
    path = (folder / given).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise refuse(f"only files in {folder} may be booted")
    if not os.path.isfile(path):  # also for a name that is too long, at which `Path.is_file` fails
        raise refuse(f"there is no such file in {folder}")
    return path
