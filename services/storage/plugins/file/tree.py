"""Disks that share data: which images of an SR are needed, which are not, and which can be made one. No I/O.

An image lies over its parent, its backing file. A disk names the image that it reads first; snapshots may name the
same one. An image that a writable disk names is that disk's alone and nothing lies over it. Images that no disk names
only carry data for those above them: they are hidden.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

from shared.bus.contract import Record


class Image(Record, frozen=True):
    """`parent`: name of the backing image, "" for none. `ours`: made by this plug-in, so it may be removed."""

    name: str
    parent: str
    size: int = 0
    ours: bool = True


class Disk(Record, frozen=True):
    """`image`: what it reads first, "" for a disk without data. `pins`: images that must stay as they are for it."""

    key: str
    image: str
    writable: bool
    pins: tuple[str, ...] = ()


class Merge(Record, frozen=True):
    """What `top` holds goes into `base`, its parent, which is hidden and has no other child."""

    top: str
    base: str


class Tree:
    """`damaged`: names of images that cannot be read: nobody knows what these need."""

    def __init__(self, images: Iterable[Image], disks: Iterable[Disk], damaged: Collection[str] = ()) -> None:
        self.images: Mapping[str, Image] = {image.name: image for image in images}
        self.disks: Mapping[str, Disk] = {disk.key: disk for disk in disks}
        self.damaged = sorted(damaged)
        self._children: dict[str, list[str]] = {}
        for image in self.images.values():
            if image.parent:
                self._children.setdefault(image.parent, []).append(image.name)

    def chain(self, name: str) -> list[str]:
        """An image and those below it; it ends where one is missing or the chain comes round."""
        chain: list[str] = []
        while name and name in self.images and name not in chain:
            chain.append(name)
            name = self.images[name].parent
        return chain

    def chain_of(self, key: str) -> list[str]:
        """The images of a disk, the one that is read first to begin with."""
        disk = self.disks.get(key)
        return self.chain(disk.image) if disk is not None else []

    def children(self, name: str) -> list[str]:
        return sorted(self._children.get(name, ()))

    def named(self) -> set[str]:
        """Images that disks name."""
        return {name for disk in self.disks.values() for name in (disk.image, *disk.pins) if name}

    def users(self, *names: str) -> list[str]:
        """Keys of the disks whose data lie in one of these images, among others."""
        return sorted(key for key in self.disks if not set(names).isdisjoint(self.chain_of(key)))

    def garbage(self) -> list[str]:
        """Images of ours that no disk needs, those above before those below; none while an image is damaged."""
        if self.damaged:
            return []
        foreign = (image.name for image in self.images.values() if not image.ours)
        needed = {each for name in {*self.named(), *foreign} for each in self.chain(name)}
        unneeded = [name for name in self.images if name not in needed]
        return sorted(unneeded, key=lambda name: (-len(self.chain(name)), name))

    def merges(self) -> Iterator[Merge]:
        """What can be made shorter, lowest images first: what is merged once is not copied again."""
        if self.damaged:
            return
        named = self.named()
        for name in sorted(self.images, key=lambda name: (len(self.chain(name)), name)):
            base = self.images[name].parent
            below = self.images.get(base)
            if below is None or not below.ours or base in named or self.children(base) != [name]:
                continue
            if below.size <= self.images[name].size:  # the disks above would be larger than they are
                yield Merge(top=name, base=base)

    def leaf(self, name: str) -> Disk | None:
        """The writable disk that names this image."""
        return next((disk for disk in self.disks.values() if disk.writable and disk.image == name), None)

    def nearest(self, name: str) -> list[str]:
        """The images that are related to one, itself first, by how many steps they are away."""
        found, queue = [name], deque([name])
        while queue:
            at = queue.popleft()
            around = [self.images[at].parent, *self.children(at)] if at in self.images else []
            for each in around:
                if each in self.images and each not in found:
                    found.append(each)
                    queue.append(each)
        return found
