"""A differencing VHD with all that it stands on: found by its locators, proved by uuid, read as one disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from services.storage.formats.interface import FormatError
from services.storage.formats.vhd.create import Parent, create_differencing
from services.storage.formats.vhd.files import ImageFile, OsFile, read_exactly
from services.storage.formats.vhd.footer import SECTOR, DiskType, stamp
from services.storage.formats.vhd.header import ABSOLUTE, MAC_URL, NO_PARENT, RELATIVE, decode_path
from services.storage.formats.vhd.image import Image, Span

MAX_DEPTH: Final = 1000
"""Images in a chain. blktap makes at most 30; more are read."""

Opener = Callable[[str, bool], ImageFile]
"""Opens a path, for writing or not. Raises `OSError`."""


class RawParent:
    """A plain image at the root of a chain."""

    def __init__(self, file: ImageFile) -> None:
        self.file = file
        self.size = file.size() // SECTOR * SECTOR

    def spans(self, offset: int, length: int) -> list[Span]:
        return [Span(offset, length, offset)]

    def read_at(self, position: int, length: int) -> bytes:
        return read_exactly(self.file, position, length, "raw parent")

    def close(self) -> None:
        self.file.close()


Node = Image | RawParent


class Chain:
    """`paths`, `nodes`: from the disk itself down to its root."""

    def __init__(self, paths: list[str], nodes: list[Node]) -> None:
        self.paths = paths
        self.nodes = nodes

    @classmethod
    def open(cls, path: str, writable: bool = False, opener: Opener = OsFile) -> Chain:
        """`writable`: of the disk itself; what it stands on is opened for reading. Raises `FormatError`, `OSError`."""
        paths: list[str] = []
        nodes: list[Node] = []
        try:
            image = Image.open(opener(path, writable), writable)
            paths.append(path)
            nodes.append(image)
            uuids = {image.footer.uuid}
            while image.type is DiskType.DIFFERENCING:
                if len(nodes) >= MAX_DEPTH:
                    raise FormatError(f"{path}: a chain of more than {MAX_DEPTH} VHDs")
                parent = find_parent(image, paths[-1])
                paths.append(parent)
                if image.header.parent_uuid == NO_PARENT:
                    nodes.append(RawParent(opener(parent, False)))
                    break
                child, image = paths[-2], Image.open(opener(parent, False))
                nodes.append(image)
                _check_parent(nodes[-2], child, image, parent)
                if image.footer.uuid in uuids:
                    raise FormatError(f"{parent}: the chain of {path} comes back to uuid {image.footer.uuid}")
                uuids.add(image.footer.uuid)
        except BaseException:
            for node in nodes:
                node.close()
            raise
        return cls(paths, nodes)

    @property
    def leaf(self) -> Image:
        leaf = self.nodes[0]
        assert isinstance(leaf, Image)
        return leaf

    @property
    def size(self) -> int:
        return self.leaf.size

    def read(self, offset: int, length: int) -> bytes:
        """Whole sectors of the disk."""
        parts = []
        for node, span in self._resolve(offset, length, 0):
            parts.append(bytes(span.length) if node is None else node.read_at(span.position or 0, span.length))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """(offset, length, present) of whole sectors: where some image has data, and where all is zeros."""
        begin, done, present = offset, offset, False
        for node, span in self._resolve(offset, length, 0):
            if (node is not None) is not present:
                if done > begin:
                    yield begin, done - begin, present
                begin, present = done, node is not None
            done += span.length
        if done > begin:
            yield begin, done - begin, present

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self.leaf.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self.leaf.zero(offset, length)

    def flush(self) -> None:
        self.leaf.flush()

    def _resolve(self, offset: int, length: int, depth: int) -> Iterator[tuple[Node | None, Span]]:
        """Who has each part; None: nobody."""
        if depth == len(self.nodes):
            yield None, Span(offset, length, None)
            return
        node = self.nodes[depth]
        inside = max(0, min(length, node.size - offset))
        for span in node.spans(offset, inside) if inside else ():
            if span.position is not None:
                yield node, span
            else:
                yield from self._resolve(span.offset, span.length, depth + 1)
        if inside < length:
            # A parent may be smaller than its child; behind its end there is nothing, whatever lies below it.
            yield None, Span(offset + inside, length - inside, None)

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def create_child(path: str, parent_path: str, raw_parent: bool = False, max_size: int = 0) -> None:
    """A differencing image of its parent's size, in a new file or on a block device. Raises `FormatError`, `OSError`.

    `max_size`: bytes that it can grow to later without moving its table.
    """
    parent = raw_parent_of(parent_path, path) if raw_parent else parent_of(parent_path, path)
    with OsFile(parent_path) as file:
        size = RawParent(file).size if raw_parent else Image.open(file).size
    with OsFile(path, create=True) as file:
        create_differencing(file, size, parent, max_size=max_size)


def parent_of(path: str, child_path: str, opener: Opener = OsFile) -> Parent:
    """What a new child writes down of a VHD that is to be its parent."""
    with Image.open(opener(path, False)) as image:
        uuid = image.footer.uuid
    return Parent(uuid, _relative(path, child_path), stamp(os.stat(path).st_mtime))


def raw_parent_of(path: str, child_path: str) -> Parent:
    return Parent(NO_PARENT, _relative(path, child_path), stamp(os.stat(path).st_mtime))


def parent_paths(image: Image) -> dict[bytes, str]:
    """What the locators of a differencing disk say, by their code, as it stands there."""
    found = {}
    for locator in image.header.locators:
        if locator.used and locator.length:
            data = read_exactly(image.file, locator.offset, locator.length, "parent locator")
            if path := decode_path(locator.code, data):
                found[locator.code] = path
    return found


def find_parent(image: Image, path: str) -> str:
    """Path of the parent's file: by its locators, or by the name in the header; the first that is there.

    `path`: the child's. Raises `FormatError` if none is there.
    """
    folder = os.path.dirname(os.path.abspath(path))
    said = parent_paths(image)
    tried = [said[code] for code in (RELATIVE, MAC_URL, ABSOLUTE) if code in said]
    if image.header.parent_name:
        tried.append(image.header.parent_name.replace("\\", "/"))
        tried.append(os.path.basename(tried[-1]))
    for name in tried:
        found = os.path.normpath(os.path.join(folder, name))
        if os.path.exists(found):
            return found
    raise FormatError(f"{path}: its parent {image.header.parent_uuid} is not there, as {tried or 'it names none'}")


def _check_parent(child: Node, child_path: str, parent: Image, path: str) -> None:
    assert isinstance(child, Image)
    if parent.footer.uuid != child.header.parent_uuid:
        raise FormatError(f"{child_path}: its parent is {child.header.parent_uuid}, but {path} is {parent.footer.uuid}")


def _relative(path: str, child_path: str) -> str:
    folder = os.path.dirname(os.path.abspath(child_path))
    # Through links (logical volumes), the parent's name is what counts, not where the link leads.
    return os.path.relpath(os.path.abspath(path), folder)
