"""Which kernel modules a module needs, and in which order they load.

The kernel's package is only unpacked, so there is no `modules.dep` (its installation would make it): the dependencies
are read from the modules themselves.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

_EM_64 = b"\x7fELF\x02\x01"


class ModuleError(Exception):
    """A module is missing or not readable; the text says which."""


def find(root: Path) -> dict[str, Path]:
    """Module name to file, for every module of an unpacked kernel package. Names use `_`, as `lsmod` shows them."""
    files = [path for path in root.glob("**/lib/modules/*/kernel/**/*.ko*") if path.suffix in (".ko", ".xz")]
    return {path.name.split(".")[0].replace("-", "_"): path for path in files}


def read(path: Path) -> bytes:
    """The module, uncompressed."""
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def dependencies(module: bytes) -> list[str]:
    """The `depends=` line of the ELF section `.modinfo`. Raises `ModuleError`."""
    for line in _section(module, b".modinfo").split(b"\0"):
        if line.startswith(b"depends="):
            return [name.replace("-", "_") for name in line[8:].decode().split(",") if name]
    return []


def _section(elf: bytes, wanted: bytes) -> bytes:
    """Source of the layout: elf(5), 64-bit little-endian."""
    if not elf.startswith(_EM_64):
        raise ModuleError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + index * size) for index in range(count)]
    names_offset = headers[names_index][4]
    for name, _, _, _, offset, length in headers:
        start = names_offset + name
        if elf[start : start + len(wanted) + 1] == wanted + b"\0":
            return elf[offset : offset + length]
    raise ModuleError(f"no section {wanted.decode()}")


def load_order(wanted: Iterable[str], depends: Callable[[str], list[str]]) -> list[str]:
    """The wanted modules and all they need, each after its needs. Raises `ModuleError` for a circle."""
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ModuleError(f"modules need each other: {' -> '.join((*above, name))}")
        if name not in order:
            for need in depends(name):
                visit(need, (*above, name))
            order.append(name)

    for name in wanted:
        visit(name, ())
    return order
