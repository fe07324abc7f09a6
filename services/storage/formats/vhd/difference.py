"""What a disk may differ in from another one of the same tree of VHDs, told from their tables."""

from __future__ import annotations

import os
from collections.abc import Iterator

from services.storage.formats.vhd.chain import Chain, Node
from services.storage.formats.vhd.header import BLOCK_SIZE
from services.storage.formats.vhd.image import Image


def changed_ranges(disk: Chain, base: Chain) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes, in order: blocks of `disk` that are in an image which only one of the two stands on.

    Blocks of images that only the base stands on count too: they hide, in the base, what the disk (reverted to an older
    state) still shows. Images are the same if uuid and file name are. Where a disk has grown, what is behind the base's
    end counts if it is in an image; elsewhere it is zeros in both.
    """
    nodes, others = _named(disk), _named(base)
    changed = bytearray(-(-disk.size // BLOCK_SIZE))
    for name in nodes.keys() ^ others.keys():
        for offset, length in _present(nodes.get(name) or others[name]):
            first = offset // BLOCK_SIZE
            after = min(len(changed), -(-(offset + length) // BLOCK_SIZE))
            if after > first:
                changed[first:after] = b"\1" * (after - first)
    at = changed.find(1)
    while at >= 0:
        end = changed.find(0, at)
        end = len(changed) if end < 0 else end
        yield at * BLOCK_SIZE, min(end * BLOCK_SIZE, disk.size) - at * BLOCK_SIZE
        at = changed.find(1, end)


def _named(chain: Chain) -> dict[tuple[str, str], Node]:
    return {
        (str(node.footer.uuid) if isinstance(node, Image) else "", os.path.basename(path)): node
        for path, node in zip(chain.paths, chain.nodes, strict=True)
    }


def _present(node: Node) -> Iterator[tuple[int, int]]:
    if not isinstance(node, Image) or node.fixed:
        yield 0, node.size
        return
    for block in node.allocated():
        yield block * node.block_size, node.block_size
