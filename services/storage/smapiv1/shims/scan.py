"""vhd-util scan: one line for each VHD of a folder, whether it can be read or not."""

from __future__ import annotations

import errno
import glob
import os

from services.storage.formats.interface import FormatError
from services.storage.smapiv1.shims import images
from services.storage.smapiv1.shims.images import opened
from services.storage.smapiv1.shims.program import Arguments, Failed, status, words


def command(given: Arguments) -> None:
    """Without -c the first image that cannot be read ends it, with that image's error as status."""
    if given.has("l"):
        raise Failed(errno.ENOTSUP, "VHDs in logical volumes that are not active cannot be scanned")
    paths = [*(sorted(glob.glob(given.text("m"))) if given.has("m") else []), *given.names]
    known = {os.path.realpath(path) for path in paths}
    for path in paths:  # grows with -a
        try:
            line, parent = _line(path, given.has("v"), given.has("M"))
        except (FormatError, OSError) as error:
            reason = words(error).replace("'", "")
            print(f"vhd={path} scan-error={-status(error)} error-message='{reason}'")
            if not given.has("c"):
                raise
            continue
        print(line)
        if given.has("a") and parent is not None and os.path.realpath(parent) not in known:
            known.add(os.path.realpath(parent))
            paths.append(parent)


def _line(path: str, whole_names: bool, markers: bool) -> tuple[str, str | None]:
    """The line, and the VHD that it stands on."""
    with opened(path) as image:
        parent = images.parent_path(image, path)
        raw = images.stands_on_raw(image)
        key = images.key_of(image)
        marker = 0 if image.batmap_header is None else image.batmap_header.marker
        capacity, size, hidden = image.size, image.file.size(), int(image.footer.hidden)

    def shown(name: str) -> str:
        return name if whole_names else os.path.basename(name)

    extra = f"marker={marker} keyhash={key[1] if key else ''} " if markers else ""
    line = (
        f"vhd={shown(path)} capacity={capacity} size={size} hidden={hidden} "
        f"{extra}parent={'none' if parent is None else shown(parent)}"
    )
    return line, None if raw else parent
