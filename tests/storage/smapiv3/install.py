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
    """A module in the folder, a program that runs it, and a link to that for each script. Upstream's `Plugin.Query` has
    its capital.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{program}.py").write_bytes((PLUGINS / f"{program}.py").read_bytes())
    # without the packages of the system, which it does not need and which take a while to look for
    script(folder, "main", f"#!/usr/bin/python3 -S\nimport {program}\n{program}.main()\n")
    for name in scripts:
        (folder / name.replace("Plugin.query", "Plugin.Query")).symlink_to("main")
    return folder


def simple_file(root: Path) -> Path:
    folder = install("simple_file", root / "volume/org.xen.xapi.storage.simple-file", VOLUME)
    features = '"VDI_DESTROY", "VDI_ACTIVATE_READONLY", "VDI_TELEPORT", "VDI_CONFIG_CBT/0"'
    return _at_once(folder, {"Plugin.Query": QUERY % ("Raw files in a folder", "5.0", features), "SR.detach": NOTHING})


def raw_file(root: Path) -> Path:
    folder = install("raw_file", root / "datapath/raw+file", DATAPATH)
    forgets = 'case "$0" in */forgetful*) features=\'"NONPERSISTENT"\';; esac\n'
    query = QUERY.replace("\n", "\n" + forgets, 1) % ("Raw files", "5.0", "'$features'")
    return _at_once(folder, {"Plugin.Query": query})


QUERY = """#!/bin/sh
echo '{"plugin": "x", "name": "x", "description": "%s", "vendor": "", "copyright": "", "version": "1",
 "required_api_version": "%s", "features": [%s], "configuration": {"location": "path of the folder"},
 "required_cluster_stack": []}'
"""
"""A plug-in's answer: description, version of the interface, features."""
NOTHING = "#!/bin/sh\necho null\n"


def _at_once(folder: Path, scripts: dict[str, str]) -> Path:
    """What is asked for in every test, by programs that start faster than Python."""
    for name, text in scripts.items():
        (folder / name).unlink()
        script(folder, name, text)
    return folder


def script(folder: Path, name: str, text: str, mode: int = 0o755) -> Path:
    """One made for a test: whatever it does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    os.chmod(path, mode)
    return path
