"""`db.conf`: into which files all rows are written, and how often. Its text is the original's.

    [/var/lib/xcp/state.db]
    mode:no_limit
    format:xml
    compress:false
    is_on_remote_storage:false

One block for each file; a line without content ends it, and what stands between two blocks is ignored. Keys and values
are lower-cased, paths are not. Keys that nobody knows here are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from shared.config import ConfigError

NAME: Final = "db.conf"
STATE: Final = "state.db"

PERIOD: Final = 21600
"""Seconds in which so many writes as follow are allowed, where writes are limited."""
WRITES: Final = 10


class Mode(Enum):
    NO_LIMIT = "no_limit"
    WRITE_LIMIT = "write_limit"


@dataclass(frozen=True, slots=True)
class Block:
    """One file. `period` (seconds), `writes`: with WRITE_LIMIT, so many in each. `other`: what nobody knows here."""

    path: Path
    mode: Mode = Mode.NO_LIMIT
    compress: bool = False
    remote: bool = False
    period: int = PERIOD
    writes: int = WRITES
    other: tuple[tuple[str, str], ...] = ()


def default(folder: Path) -> list[Block]:
    """Without a `db.conf`."""
    return [Block(folder / STATE, other=(("available_this_boot", "true"),))]


def preferred(blocks: Sequence[Block]) -> Block:
    """The one that counts most: the last of the text."""
    return blocks[-1]


def load(path: Path, folder: Path) -> list[Block]:
    """The blocks of that file, in its order; paths that are not absolute are in `folder`. Without the file, `default`.

    Raises `ConfigError`: a database that is told where to write, and cannot understand it, must not begin to forget.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return default(folder)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    return parse(text, folder, str(path))


def parse(text: str, folder: Path = Path("/"), name: str = NAME) -> list[Block]:
    """Raises `ConfigError` with `name` and the number of the line."""
    blocks: list[Block] = []
    begun: dict[Path, int] = {}
    lines = [line.rstrip("\r") for line in text.split("\n")]
    number = 0
    while number < len(lines):
        if not lines[number].startswith("["):
            number += 1
            continue
        begin = number
        number += 1
        while number < len(lines) and lines[number]:
            number += 1
        try:
            block = _block(lines[begin], lines[begin + 1 : number], folder)
        except _Wrong as wrong:
            raise ConfigError(f"{name}, line {begin + 1 + wrong.offset}: {wrong}") from None
        if block.path in begun:
            raise ConfigError(f"{name}, line {begin + 1}: {block.path} has a block in line {begun[block.path]} already")
        if block.remote and any(other.remote for other in blocks):
            raise ConfigError(f"{name}, line {begin + 1}: a second file on remote storage, at most one may be there")
        begun[block.path] = begin + 1
        blocks.append(block)
    if not blocks:
        raise ConfigError(f"{name}: no block, so no file for the database")
    return blocks


class _Wrong(Exception):
    """`offset`: lines after the block's first one."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(why)
        self.offset = offset


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError
    return int(text)


_KNOWN: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "mode": ("mode", Mode),
    "format": ("", {"xml": "xml"}.__getitem__),
    "compress": ("compress", _boolean),
    "is_on_remote_storage": ("remote", _boolean),
    "write_limit_period": ("period", _count),
    "write_limit_write_cycles": ("writes", _count),
}
"""Key to the field of a block and what makes a value of its text."""


def _block(first: str, lines: list[str], folder: Path) -> Block:
    if not first.endswith("]") or len(first) < 3:
        raise _Wrong(0, f"a block begins with its path in brackets, not {first[:80]!r}")
    fields: dict[str, object] = {}
    other: list[tuple[str, str]] = []
    for offset, line in enumerate(lines, 1):
        key, colon, text = line.lower().partition(":")
        if not colon:
            raise _Wrong(offset, f"a key, a colon and a value are expected, not {line[:80]!r}")
        if key not in _KNOWN:
            other.append((key, text))
            continue
        name, value = _KNOWN[key]
        try:
            fields[name] = value(text)
        except (KeyError, ValueError):
            raise _Wrong(offset, f"{key} cannot be {text[:80]!r}") from None
    fields.pop("", None)
    return Block(path=folder / first[1:-1], other=tuple(other), **fields)  # type: ignore[arg-type]


def show(blocks: Sequence[Block]) -> str:
    """The text that `parse` makes these blocks of."""
    return "\n".join(map(_shown, blocks))


def _shown(block: Block) -> str:
    lines = [
        f"[{block.path}]",
        f"mode:{block.mode.value}",
        "format:xml",
        f"compress:{_truth(block.compress)}",
        f"is_on_remote_storage:{_truth(block.remote)}",
    ]
    if block.mode is Mode.WRITE_LIMIT:
        lines += [f"write_limit_period:{block.period}", f"write_limit_write_cycles:{block.writes}"]
    lines += [f"{key}:{value}" for key, value in block.other]
    return "".join(f"{line}\n" for line in lines)


def _truth(value: bool) -> str:
    return "true" if value else "false"
