"""Where two disks of one tree may differ, found by which images they do not share. This blocks."""

from __future__ import annotations

from services.storage.plugins.file.folder import Folder
from services.storage.plugins.interface import Range, Unimplemented


def differences(folder: Folder, key: str, base: str) -> list[Range]:
    """In order, apart from each other. Nobody may be writing to the disks.

    Both read the same wherever none of the images that only one of them has holds anything. Raises `Unimplemented` for
    disks that share no image.
    """
    ours, theirs = folder.chain(key), folder.chain(base)
    if set(ours).isdisjoint(theirs):
        raise Unimplemented("Volume.compare of disks that have no image in common")
    headers = {name: folder.header(name) for name in {*ours, *theirs}}
    size = max(header.virtual_size for header in headers.values())
    found: list[tuple[int, int]] = []
    for name in set(ours) ^ set(theirs):
        header = headers[name]
        found += folder.allocated(name)
        if header.virtual_size < size:  # what lies below it cannot be seen beyond its end
            found.append((header.virtual_size, size - header.virtual_size))
    return joined(found)


def joined(ranges: list[tuple[int, int]]) -> list[Range]:
    """Ranges in order, those that touch or overlap made one."""
    result: list[Range] = []
    for offset, length in sorted(ranges):
        if result and offset <= result[-1].offset + result[-1].length:
            begin, known = result[-1]
            result[-1] = Range(begin, max(known, offset + length - begin))
        else:
            result.append(Range(offset, length))
    return result
