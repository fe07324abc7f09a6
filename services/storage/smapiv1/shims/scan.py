"""vhd-util scan: one line for each VHD of a folder or a volume group, whether it can be read or not."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from typing import Final

from services.storage.formats.interface import FormatError
from services.storage.formats.vhd.chain import parent_paths
from services.storage.formats.vhd.footer import DiskType
from services.storage.formats.vhd.header import RELATIVE
from services.storage.formats.vhd.image import Image
from services.storage.smapiv1.shims import images, lvm
from services.storage.smapiv1.shims.images import opened
from services.storage.smapiv1.shims.program import Arguments, Failed, status, words

_NO_PARENT: Final = "none"
Opened = Callable[[str], tuple[Image, str | None]]
"""An image, and the name of what it stands on."""


def command(given: Arguments) -> None:
    """Without -c the first image that cannot be read ends it, with that image's error as status."""
    if given.has("l"):
        group = lvm.volumes(given.text("l"))
        names = lvm.matching(group, given.text("m")) if given.has("m") else []
        devices = f"/dev/{given.text('l')}"
        _scan(given, [*names, *given.names], lambda name: _in_volume(group, name, devices))
    else:
        paths = sorted(glob.glob(given.text("m"))) if given.has("m") else []
        _scan(given, [*paths, *given.names], _in_file)


def _scan(given: Arguments, names: list[str], open_: Opened) -> None:
    known = {os.path.realpath(name) for name in names}
    for name in names:  # grows with -a
        try:
            image, parent = open_(name)
            with image:
                print(_line(image, name, parent, given.has("v"), given.has("M")))
                raw = images.stands_on_raw(image)
        except (FormatError, OSError, Failed) as error:
            reason = words(error).replace("'", "")
            print(f"vhd={name} scan-error={-status(error)} error-message='{reason}'")
            if not given.has("c"):
                raise
            continue
        if given.has("a") and parent is not None and not raw and os.path.realpath(parent) not in known:
            known.add(os.path.realpath(parent))
            names.append(parent)


def _in_file(path: str) -> tuple[Image, str | None]:
    image = opened(path)
    try:
        return image, images.parent_path(image, path)
    except BaseException:
        image.close()
        raise


def _in_volume(group: dict[str, lvm.Volume], name: str, devices: str) -> tuple[Image, str | None]:
    """What it stands on is named by its locators: the device is not there while it is not active."""
    if name not in group:
        raise FormatError(f"there is no volume {name}")
    device = os.path.join(devices, name)
    image = opened(device) if os.path.exists(device) else Image.open(group[name])
    if image.type is not DiskType.DIFFERENCING:
        return image, None
    said = parent_paths(image)
    path = said.get(RELATIVE) or next(iter(said.values()), image.header.parent_name)
    return image, os.path.basename(path)


def _line(image: Image, name: str, parent: str | None, whole_names: bool, markers: bool) -> str:
    def shown(path: str) -> str:
        return path if whole_names else os.path.basename(path)

    extra = ""
    if markers:
        key = images.key_of(image)
        marker = 0 if image.batmap_header is None else image.batmap_header.marker
        extra = f"marker={marker} keyhash={key[1] if key else ''} "
    return (
        f"vhd={shown(name)} capacity={image.size} size={image.file.size()} hidden={int(image.footer.hidden)} "
        f"{extra}parent={_NO_PARENT if parent is None else shown(parent)}"
    )
