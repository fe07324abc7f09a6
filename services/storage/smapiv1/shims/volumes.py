"""Logical volumes that drivers have activated and deactivated on other hosts than their own."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from services.storage.smapiv1.shims.program import Failed

_ACTIVATE, _DEACTIVATE = "-ay", "-an"
_ARGUMENT: Final = {
    "activate": _ACTIVATE,
    "deactivate": _DEACTIVATE,
    "deactivateNoRefcount": _DEACTIVATE,
    "refresh": "--refresh",
}
_CLEAN_UP: Final = "cleanupLockAndRefcount"
_KEPT: Final = ("/run/lock/sm", "/run/sm/refcount")
"""Folders in which drivers have a folder for each namespace."""


def multi(args: Mapping[str, str]) -> None:
    """`vgName`, and `action<n>`, `lvName<n>`, `ns<n>`, `uuid<n>` from 1 on. Raises `Failed` at the first that fails.

    Uses are not counted: the kernel does not let a volume go that is open.
    """
    number = 1
    while action := args.get(f"action{number}"):
        if action == _CLEAN_UP:
            _forget(args[f"ns{number}"], args[f"uuid{number}"])
        elif action in _ARGUMENT:
            _change(_ARGUMENT[action], f"{args['vgName']}/{args[f'lvName{number}']}")
        else:
            raise Failed(errno.EINVAL, f"unrecognized action: {action}")
        number += 1


def _change(argument: str, volume: str) -> None:
    if volume.startswith("-"):
        raise Failed(errno.EINVAL, f"{volume} is no logical volume")
    ended = subprocess.run(["lvchange", argument, volume], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Failed(errno.EIO, f"lvchange {argument} {volume}: {ended.stderr.strip()}")


def _forget(namespace: str, name: str) -> None:
    for folder in _KEPT:
        place = os.path.join(folder, namespace, name)
        if os.path.dirname(os.path.dirname(os.path.normpath(place))) != folder:
            raise Failed(errno.EINVAL, f"{namespace}/{name} is no name")
        if os.path.isdir(place):
            shutil.rmtree(place)
        elif os.path.exists(place):
            os.unlink(place)
