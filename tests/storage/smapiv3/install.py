"""Putting the plug-ins of the tests into a folder, as an administrator would."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from services.storage.smapiv3 import interface_v5 as v5
from services.storage.smapiv3.declaration import functions

PLUGINS = Path(__file__).parent / "plugins"


def names(*interfaces: type) -> list[str]:
    return [function.name for interface in interfaces for function in functions(interface)]


VOLUME = names(v5.Plugin, v5.SR, v5.Volume)
DATAPATH = names(v5.Plugin, v5.Datapath, v5.Data)


def install(program: str, folder: Path, scripts: Iterable[str]) -> Path:
    """One program in the folder, with a link for each script. Upstream's `Plugin.Query` has its capital."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / program
    target.write_bytes((PLUGINS / program).read_bytes())
    target.chmod(0o755)
    for name in scripts:
        (folder / name.replace("Plugin.query", "Plugin.Query")).symlink_to(program)
    return folder


def simple_file(root: Path) -> Path:
    return install("simple_file.py", root / "volume/org.xen.xapi.storage.simple-file", VOLUME)


def raw_file(root: Path) -> Path:
    return install("raw_file.py", root / "datapath/raw+file", DATAPATH)


def script(folder: Path, name: str, text: str, mode: int = 0o755) -> Path:
    """One made for a test: whatever it does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    os.chmod(path, mode)
    return path
