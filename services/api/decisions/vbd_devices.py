"""Device names of VBDs (vm-lifecycle 4): what `userdevice` may say, which number it means, what the guest sees."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from services.api.decisions.rows import Rows, existing
from shared.errors import ApiError

AUTODETECT: Final = "autodetect"
HIGHEST: Final = 254
"""Of the numbers that `VM.get_allowed_VBD_devices` offers; a control domain has one more."""

_NUMBER: Final = re.compile(r"-?\d{1,18}", re.ASCII)
_DISK: Final = re.compile(r"(?:xvd|sd|hd)([a-z]{1,8})(\d{0,9})", re.ASCII)
_PAIR: Final = re.compile(r"d(\d{1,18})(?:p(\d{1,9}))?", re.ASCII)
_FLOPPY: Final = re.compile(r"fd([ab])")


class Position(NamedTuple):
    """Where a VBD is on its VM: `0`, `xvda`, `sda` and `hda` all mean disk 0. `partition` 0: the whole disk."""

    bus: str
    number: int
    partition: int = 0


def position(userdevice: str, *, hvm: bool = True) -> Position:
    """What a name means. Floppy drives exist in HVM domains only. Raises INVALID_DEVICE [name]."""
    if _NUMBER.fullmatch(userdevice):
        return Position("disk", int(userdevice))
    if match := _DISK.fullmatch(userdevice):
        return Position("disk", _from_letters(match[1]), int(match[2] or 0))
    if match := _PAIR.fullmatch(userdevice):
        return Position("disk", int(match[1]), int(match[2] or 0))
    if hvm and (match := _FLOPPY.fullmatch(userdevice)):
        return Position("floppy", _from_letters(match[1]))
    raise ApiError("INVALID_DEVICE", userdevice)


def _from_letters(letters: str) -> int:
    """a is 0, z 25, aa 26."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def _to_letters(number: int) -> str:
    letters = ""
    number += 1
    while number > 0:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def linux_device(where: Position) -> str:
    """`VBD.device` of a running VM: xvda, xvdb, ...; fda for a floppy."""
    if where.bus == "floppy":
        return "fd" + _to_letters(where.number)
    return "xvd" + _to_letters(where.number) + (str(where.partition) if where.partition else "")


def used(rows: Rows, vm: str) -> dict[Position, str]:
    """The positions that a VM's VBDs take, with their references. Names that mean nothing take none."""
    row = existing(rows, "VM", vm)
    found: dict[Position, str] = {}
    for ref in row["VBDs"]:
        vbd = rows.row("VBD", ref)
        if vbd is None:
            continue
        try:
            found[position(vbd["userdevice"])] = ref
        except ApiError:  # set_userdevice takes any text: such a VBD is nowhere until it is attached
            continue
    return found


def allowed(rows: Rows, vm: str) -> list[str]:
    """`VM.get_allowed_VBD_devices`: the free numbers. Raises HANDLE_INVALID."""
    highest = HIGHEST + 1 if existing(rows, "VM", vm)["is_control_domain"] else HIGHEST
    return [str(number) for number in _free(used(rows, vm), range(highest + 1))]


def _free(taken: Iterable[Position], numbers: Iterable[int]) -> Iterable[int]:
    occupied = {where.number for where in taken if where.bus == "disk"}
    return (number for number in numbers if number not in occupied)


def assign(rows: Rows, vm: str, userdevice: str) -> str:
    """The name a new VBD gets: as asked for, or the lowest free number for `autodetect`.

    Raises INVALID_DEVICE [name], DEVICE_ALREADY_EXISTS [name], HANDLE_INVALID.
    """
    taken = used(rows, vm)
    if userdevice == AUTODETECT:
        return str(next(iter(_free(taken, range(len(taken) + 1)))))
    hvm = existing(rows, "VM", vm)["domain_type"] in ("hvm", "unspecified")
    if position(userdevice, hvm=hvm) in taken:
        raise ApiError("DEVICE_ALREADY_EXISTS", userdevice)
    return userdevice
