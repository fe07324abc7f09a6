"""What a disk has to hold: numbered blocks, of which those that were under way at a crash may be old or new."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

BLOCK = 4096
NOTHING = frozenset({0})


def block(stamp: int) -> bytes:
    """The bytes of a block with that number; 0 is a block that was never written, or zeroed."""
    return stamp.to_bytes(8) * (BLOCK // 8)


@dataclass
class Content:
    """`size`: bytes. `stamps`: by block, the numbers that it may have; of blocks that are not named, 0."""

    size: int
    stamps: dict[int, frozenset[int]] = field(default_factory=dict)

    def copy(self) -> Content:
        return Content(self.size, dict(self.stamps))

    def grown(self, size: int) -> Content:
        return Content(size, dict(self.stamps))

    def may_be(self, number: int, stamp: int) -> None:
        """A write of that block has begun."""
        self.stamps[number] = self.stamps.get(number, NOTHING) | {stamp}

    def is_now(self, number: int, stamp: int) -> None:
        """It is durable."""
        self.stamps[number] = frozenset({stamp})

    def or_in_part(self, other: Content) -> Content:
        """Each block as in one of both, as after an import that was broken off."""
        numbers = self.stamps.keys() | other.stamps.keys()
        both = {each: self.stamps.get(each, NOTHING) | other.stamps.get(each, NOTHING) for each in numbers}
        return Content(self.size, both)

    @property
    def certain(self) -> bool:
        return all(len(stamps) == 1 for stamps in self.stamps.values())

    @property
    def data(self) -> bytes:
        """All of it, where that is certain."""
        whole = bytearray(self.size)
        for number, stamps in self.stamps.items():
            (stamp,) = stamps
            whole[number * BLOCK : (number + 1) * BLOCK] = block(stamp)
        return bytes(whole)

    def compare(self, data: bytes) -> tuple[Content, list[str]]:
        """What the disk holds from now on, and what is wrong with it."""
        if len(data) != self.size:
            return self, [f"it has {len(data)} bytes, not {self.size}"]
        found, wrong = Content(self.size), []
        for number in range(self.size // BLOCK):
            held = data[number * BLOCK : (number + 1) * BLOCK]
            stamp = int.from_bytes(held[:8])
            allowed = self.stamps.get(number, NOTHING)
            if held != block(stamp):
                wrong.append(f"block {number} is torn: {_numbers(held)} instead of {_words(allowed)}")
            elif stamp not in allowed:
                wrong.append(f"block {number} has {stamp} instead of {_words(allowed)}")
            elif stamp:
                found.stamps[number] = frozenset({stamp})
        return found, wrong


def which(contents: Iterable[Content], data: bytes) -> tuple[Content | None, str]:
    """Which of them the disk holds, as it is from now on; None, and what is wrong with each."""
    reasons = []
    for content in contents:
        found, wrong = content.compare(data)
        if not wrong:
            return found, ""
        reasons.append(f"{len(wrong)} blocks, {'; '.join(wrong[:3])}")
    return None, " | or ".join(reasons)


def _numbers(held: bytes) -> str:
    return _words({int.from_bytes(held[at : at + 8]) for at in range(0, len(held), 8)})


def _words(stamps: Iterable[int]) -> str:
    return " or ".join(str(stamp) for stamp in sorted(stamps)[:4])
