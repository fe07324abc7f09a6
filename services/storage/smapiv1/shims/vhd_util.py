"""vhd-util: what drivers ask about VHD files and change in them, one command at a time.

What it prints is read by drivers line by line: the words and their order are blktap's.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from services.storage.formats.interface import FormatError
from services.storage.formats.vhd import change, check, coalesce
from services.storage.formats.vhd.chain import parent_of, raw_parent_of
from services.storage.formats.vhd.files import OsFile
from services.storage.formats.vhd.footer import FOOTER_SIZE, DiskType
from services.storage.formats.vhd.header import BLOCK_SIZE
from services.storage.formats.vhd.image import Image
from services.storage.smapiv1.shims import images, journal, scan, summary
from services.storage.smapiv1.shims.images import MIB, opened
from services.storage.smapiv1.shims.program import Arguments, Command, Failed, Misused, run


def parent_line(image: Image, path: str) -> str:
    return images.parent_path(image, path) or f"{path} has no parent"


def _marker(image: Image) -> int:
    if image.batmap_header is None:
        raise Failed(errno.ENOSYS, "there is no batmap, and so no marker")
    return image.batmap_header.marker


QUERIES: Final[dict[str, Callable[[Image, str], str]]] = {
    "v": lambda image, path: str(image.size // MIB),
    "s": lambda image, path: str(image.file.size()),
    "p": parent_line,
    "f": lambda image, path: f"hidden: {int(image.footer.hidden)}",
    "m": lambda image, path: f"marker: {_marker(image)}",
    "d": lambda image, path: f"chain depth: {images.depth(path)}",
    "a": lambda image, path: str(sum(1 for _ in image.allocated())),
    "S": lambda image, path: str(image.max_size // MIB),
}
"""What can be asked, in the order in which it is answered."""


def _query(given: Arguments) -> None:
    path = given.text("n")
    with opened(path) as image:
        for letter, answer in QUERIES.items():
            if letter == "p" and given.has("u"):
                continue
            if given.has(letter):
                print(answer(image, path))


def _create(given: Arguments) -> None:
    size, largest = given.number("s"), given.number("S", 0)
    if largest and largest < size:
        raise Misused("-S is less than -s")
    images.create(given.text("n"), size * MIB, given.has("r"), largest * MIB)


def _snapshot(given: Arguments) -> None:
    path, parent = given.text("n"), given.text("p")
    limit = given.number("l", 0)
    if limit and not given.has("m") and (depth := images.depth(parent)) + 1 > limit:
        raise Failed(errno.ENOSPC, f"the chain of {parent} has {depth} images, the limit is {limit}")
    images.snapshot(path, parent, given.has("m"), given.number("S", 0) * MIB, not given.has("e"))


def _coalesce(given: Arguments) -> None:
    path = given.text("n")
    with opened(path) as child:
        parent_path = images.parent_path(child, path)
        if parent_path is None:
            raise Failed(errno.EINVAL, f"{path} stands on nothing")
        if images.stands_on_raw(child):
            with OsFile(parent_path, writable=True) as raw:
                written = coalesce.coalesce(child, raw)
        else:
            with opened(parent_path, writable=True) as parent:
                if parent.footer.uuid != child.header.parent_uuid:
                    raise Failed(errno.EINVAL, f"{parent_path} is not the parent of {path}")
                written = coalesce.coalesce(child, parent)
    print(f"Coalesced {written} sectors")


def _set(given: Arguments) -> None:
    name, value = given.text("f"), given.number("v")
    if name not in ("hidden", "marker") or value > 255:
        raise Misused(f"{name} {value}: what can be set is hidden and marker, to 0-255")
    with opened(given.text("n"), writable=True) as image:
        if name == "hidden":
            change.set_hidden(image, bool(value))
        else:
            image.put_marker(value)
            image.flush()


def _modify(given: Arguments) -> None:
    path = given.text("n")
    with opened(path, writable=True) as image:
        if given.has("z"):
            if image.fixed:
                raise Failed(errno.ENOSYS, f"{path} is a fixed disk")
            change.forget_data(image)
        if given.has("p"):
            parent = os.path.normpath(given.text("p"))
            if os.path.realpath(parent) == os.path.realpath(path):
                raise Failed(errno.EINVAL, f"{path} cannot stand on itself")
            change.set_parent(image, raw_parent_of(parent, path) if given.has("m") else parent_of(parent, path))
        if given.has("s"):
            _set_physical_size(image, given.number("s"))


def _set_physical_size(image: Image, size: int) -> None:
    """The footer at the end of so many bytes: of a logical volume that is to shrink, or has grown."""
    if size % FOOTER_SIZE or size < image.end + FOOTER_SIZE:
        raise Failed(errno.EINVAL, f"the image needs {image.end + FOOTER_SIZE} bytes, not {size}")
    if not image.file.fixed_size:
        image.file.truncate(size)
    image.file.pwrite(size - FOOTER_SIZE, image.footer.pack())
    image.file.flush()


def _resize(given: Arguments) -> None:
    path, size, fast = given.text("n"), given.number("s") * MIB, given.has("f")
    if fast == given.has("j"):
        raise Misused("either -j or -f")
    with opened(path, writable=True) as image:
        if not image.fixed:
            size = -(-size // BLOCK_SIZE) * BLOCK_SIZE
        if size < image.size:
            raise Failed(errno.ENOSYS, f"{path} has {image.size} bytes, shrinking to {size} is not supported")
        if fast:
            if size > image.max_size:
                raise Failed(errno.EINVAL, f"{path} can grow to {image.max_size} bytes at once, not to {size}")
            change.resize(image, size)
            return
        journal.begin(given.text("j"), image)
        change.resize(image, size)
    journal.end(given.text("j"))


def _check(given: Arguments) -> None:
    path: str | None = given.text("n")
    while path is not None:
        with OsFile(path) as file:
            found = check.problems(file)
        if given.has("i"):
            found = [each for each in found if "footer" not in each]
        if found:
            print(f"{path} appears invalid; {'; '.join(found)}")
            raise Failed(errno.EINVAL, f"{path}: {'; '.join(found)}")
        print(f"{path} is valid")
        path = _checked_parent(path) if given.has("p") else None


def _checked_parent(path: str) -> str | None:
    with opened(path) as image:
        return None if images.stands_on_raw(image) else images.parent_path(image, path)


def _repair(given: Arguments) -> None:
    opened(given.text("n"), writable=True).close()


def _revert(given: Arguments) -> None:
    journal.revert(given.text("n"), given.text("j"))


def _key(given: Arguments) -> None:
    path = given.text("n")
    if not given.has("p"):
        raise images.encrypted(path) if given.has("C") else Failed(errno.ENOTSUP, "VHDs cannot be encrypted here")
    with opened(path) as image:
        found = images.key_of(image)
    print("none" if found is None else " ".join(found))


def _read(given: Arguments) -> None:
    path = given.text("n")
    with opened(path) as image:
        if given.has("p"):
            print(summary.of(image, hexadecimal=given.has("x")))
        if given.has("B"):
            if image.type is DiskType.FIXED:
                raise FormatError("a fixed VHD has no blocks")
            bitmap = bytearray(-(-image.blocks // 8))
            for block in image.allocated():
                bitmap[block >> 3] |= 0x80 >> (block & 7)
            sys.stdout.flush()
            sys.stdout.buffer.write(bitmap)
            sys.stdout.buffer.flush()


COMMANDS: Final = {
    "create": Command("n:s:S:r", "-n FILE -s MB [-S MB] [-r]", _create),
    "snapshot": Command("n:p:S:l:me", "-n FILE -p PARENT [-m] [-e] [-S MB] [-l DEPTH]", _snapshot),
    "query": Command("n:vspfdSmau", "-n FILE [-vspfmdaS]", _query),
    "read": Command("n:pBx", "-n FILE [-p] [-B]", _read),
    "set": Command("n:f:v:", "-n FILE -f hidden|marker -v VALUE", _set),
    "repair": Command("n:b", "-n FILE", _repair),
    "coalesce": Command("n:o:a:x:sp", "-n FILE", _coalesce),
    "modify": Command("n:s:p:mz", "-n FILE [-p PARENT [-m]] [-s BYTES] [-z]", _modify),
    "scan": Command("m:l:fcapvM", "[-f] [-c] [-a] [-v] [-m GLOB] [FILE ...]", scan.command),
    "check": Command("n:iItpbBs", "-n FILE [-i] [-p]", _check),
    "resize": Command("n:s:j:f", "-n FILE -s MB -j JOURNAL | -f", _resize),
    "revert": Command("n:j:", "-n FILE -j JOURNAL", _revert),
    "key": Command("n:k:N:H:scCp", "-n FILE -p", _key),
}


def main(arguments: Sequence[str]) -> int:
    return run("vhd-util", COMMANDS, arguments[1:])
