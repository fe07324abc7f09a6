"""What the conformance suite has to know of an SR type."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from services.storage.plugins.interface import Plugin

FEATURES = {
    "create": "VDI_CREATE",
    "destroy": "VDI_DELETE",
    "clone": "VDI_CLONE",
    "snapshot": "VDI_SNAPSHOT",
    "resize": "VDI_RESIZE",
    "introduce": "VDI_INTRODUCE",
}
"""Traits that the driver information must say as well, and must not say of a type that lacks them."""

DISKS = frozenset({"create", "destroy", "clone", "snapshot", "resize"})
"""What a type has whose disks are made by it."""


@dataclass
class Medium:
    """Where an SR can be made. `lose`: takes it away from under an attached SR; `heal`: brings it back, for the
    clean-up. `put`: for types whose disks come from elsewhere: puts one with that name there and returns its key.
    """

    configuration: dict[str, str]
    lose: Callable[[], None] | None = None
    heal: Callable[[], None] = lambda: None
    put: Callable[[str, int], str] | None = None


@dataclass(frozen=True)
class Entry:
    """One SR type, with whatever its tests need on the machine.

    `make`: a new plug-in, as a service that starts has it; the folder is what the service keeps over restarts.
    `medium`: a fresh one, in a folder of the test; nothing of it may be left.

    `traits`, which decide what tests are run:
      those of `FEATURES`, `copy`, `revert`, `probe`;
      `repeat`: making a disk again with the same uuid finds it (a driver that chooses uuids cannot);
      `shared`: another host of the process that attaches the SR sees the same disks;
      `names`: disks keep their names and keys;
      `uuids`: they have the uuids that are asked for;
      `held`: the SR knows by what datapath of what host a disk is activated, and can be told that a host is dead;
      `limited`: a full SR says SR_FULL, and `lose`: a medium can be taken away.

    `wrong`: configurations that cannot be, with the code that says so at create. `requires`: "" or why the machine
    cannot run it.
    """

    make: Callable[[Path], Awaitable[Plugin]]
    medium: Callable[[Path], AbstractContextManager[Medium]]
    traits: frozenset[str]
    wrong: list[tuple[dict[str, str], str]] = field(default_factory=list)
    requires: str = ""
