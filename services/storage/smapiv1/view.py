"""Where a host's drivers run: the paths that they see, and what of those is elsewhere for everybody else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from shared.driver_view import MODULES

HERE: Final = Path(__file__).parent
OVER: Final = HERE / "shims"
"""Programs that drivers run instead of the system's; below it, folders as they are called there."""
UNDER: Final = HERE / "substitutes"
"""Programs for systems that have none of that name."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/xensource/bin"
_INHERITED: Final = ("XAPI_POOL_DIR",)
"""By this a pool finds all that descends from it."""


class View(Protocol):
    @property
    def state(self) -> Path:
        """A folder that is gone when what drivers have set up is gone."""
        ...

    async def open(self) -> None:
        """Makes it, or finds it again. Before the first command."""
        ...

    def command(self, words: Sequence[str]) -> list[str]:
        """The same, run there."""
        ...

    def outside(self, path: str) -> str:
        """What a path that a driver names is called for others on this machine."""
        ...

    def describe(self, inventory: Mapping[str, str]) -> None:
        """Writes the host's inventory, where drivers look for it."""
        ...

    async def close(self) -> None:
        """Removes it, with all that drivers have left in it."""
        ...


def environment(socket: str) -> dict[str, str]:
    """Of every driver: as xapi has it, with what the system lacks. `socket`: of the API, for `XenAPI.xapi_local`."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    over, under = (f"{folder}/usr/sbin:{folder}/usr/bin" for folder in (OVER, UNDER))
    return {
        **inherited,
        "PATH": f"{over}:{_PATH}:{under}",
        "ORIGINATOR": "SM",
        "PYTHONPATH": str(MODULES),
        "XAPI_SOCKET": socket,
        "LANG": "C.UTF-8",
    }


class SystemView:
    """The machine as it is: for services that are not root, or are told so. `state`: see `View`, kept by boots."""

    def __init__(self, state: Path) -> None:
        self.state = state

    async def open(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)

    def command(self, words: Sequence[str]) -> list[str]:
        return list(words)

    def outside(self, path: str) -> str:
        return path

    def describe(self, inventory: Mapping[str, str]) -> None:
        """The machine's own inventory is not ours to write."""

    async def close(self) -> None:
        """There is nothing but the system."""
