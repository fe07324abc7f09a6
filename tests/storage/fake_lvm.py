"""LVM as far as the plug-in uses it: the same arguments, the same reports, files for devices.

It keeps its state in a file, as LVM does on its devices, and complains in LVM's words. What LVM 2.03.16 was seen to
refuse or to leave out, it does too: options that do not go together, tags that are too long, how full a pool is that is
not active. `test_lvm_itself` runs the same commands on LVM where it is installed.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from pathlib import Path
from typing import Any

from services.storage.plugins.program import Output, run

EXTENT = 4 << 20
DEVICE = 64 << 20
FLAGS = {"--yes", "--force", "--snapshot", "--nosuffix", "--ignoreactivationskip"}
"""Options without a value."""


class FakeLvm:
    """`folder`: for the state and for the nodes, `<folder>/dev/<group>/<volume>`, which are there while active.

    `extent`: bytes, of which volumes have a whole number.
    """

    def __init__(self, folder: Path, extent: int = EXTENT) -> None:
        self._folder, self._extent = folder, extent
        self._file = folder / "lvm.json"
        self.nodes = folder / "dev"
        self.commands: list[list[str]] = []
        self.cleared: list[list[str]] = []
        self.metadata_percent = "1.00"
        self._lock = threading.Lock()

    async def __call__(self, arguments: list[str]) -> Output:
        if arguments[0] == "blkdiscard":
            self.cleared.append(arguments[1:])
            return Output(0, "", "")
        if arguments[0] != "lvm":
            return await run(arguments)
        self.commands.append(arguments)
        return await asyncio.to_thread(self._run, arguments[1], arguments[2:])

    def _run(self, command: str, words: list[str]) -> Output:
        options, names = _parse(words)
        with self._lock:
            state: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
            try:
                text = getattr(self, f"_{command}")(state, options, names)
            except _Refused as refused:
                return Output(5, "", f"  {refused}\n")
            self._file.write_text(json.dumps(state))
        return Output(0, text or "", "")

    def _vgs(self, state: dict[str, Any], _: dict[str, list[str]], names: list[str]) -> str:
        rows = []
        for name in names:
            group = _group(state, name)
            size = DEVICE * len(group["devices"])
            used = sum(volume["size"] for volume in group["volumes"].values() if volume["kind"] != "V")
            rows.append(
                {
                    "vg_name": name,
                    "vg_size": str(size),
                    "vg_free": str(size - used),
                    "vg_extent_size": str(self._extent),
                    "vg_tags": ",".join(group["tags"]),
                }
            )
        return json.dumps({"report": [{"vg": rows}]})

    def _pvs(self, state: dict[str, Any], _: dict[str, list[str]], names: list[str]) -> str:
        owners = {device: name for name, group in state.items() for device in group["devices"]}
        for name in names:
            if name not in owners:
                there = "Failed to find physical volume" if name != "/dev/nowhere" else "Cannot use"
                raise _Refused(f'{there} "{name}".' if there[0] == "F" else f"Cannot use {name}: device not found")
        rows = [{"pv_name": device, "vg_name": owners[device]} for device in names or owners]
        return json.dumps({"report": [{"pv": rows}]})

    def _lvs(self, state: dict[str, Any], _: dict[str, list[str]], names: list[str]) -> str:
        rows = [
            {
                "lv_name": name,
                "lv_size": str(volume["size"]),
                "lv_attr": f"{volume['kind']}{volume['permission']}i-{'a' if volume.get('active') else '-'}-----",
                "lv_tags": ",".join(volume["tags"]),
                "data_percent": "0.00" if volume["kind"] in "Vt" and volume.get("active") else "",
                "metadata_percent": self.metadata_percent if volume["kind"] == "t" and volume.get("active") else "",
                "pool_lv": "thin-pool" if volume["kind"] == "V" else "",
            }
            for name, volume in _group(state, names[0])["volumes"].items()
        ]
        return json.dumps({"report": [{"lv": rows}]})

    def _vgcreate(self, state: dict[str, Any], options: dict[str, list[str]], names: list[str]) -> None:
        state[names[0]] = {"devices": names[1:], "volumes": {}, "tags": options.get("--addtag", [])}

    def _vgchange(self, state: dict[str, Any], options: dict[str, list[str]], names: list[str]) -> None:
        _group(state, names[0])["tags"] += options.get("--addtag", [])

    def _vgremove(self, state: dict[str, Any], _: dict[str, list[str]], names: list[str]) -> None:
        _group(state, names[0])
        del state[names[0]]

    def _pvremove(self, state: dict[str, Any], _: dict[str, list[str]], names: list[str]) -> None:
        """Nothing is written on the devices."""

    def _lvcreate(self, state: dict[str, Any], options: dict[str, list[str]], names: list[str]) -> None:
        group, _, source = names[0].partition("/")
        volumes = _group(state, group)["volumes"]
        (name,) = options["--name"]
        if name in volumes:
            raise _Refused(f'Logical Volume "{name}" already exists in volume group "{group}"')
        if "--zero" in options and options.get("--type") == ["thin"]:
            raise _Refused("--zero is supported only with thin pool creation.")
        made = {"tags": options.get("--addtag", []), "permission": options.get("--permission", ["rw"])[0][-1]}
        if source:
            volumes[name] = {**volumes[source], **made, "active": False}
            shutil.copyfile(self._data(group, source), self._data(group, name))
            return
        size = int(float(DEVICE * 0.9)) if options["--type"] == ["thin-pool"] else self._size(options)
        kind = {"thin-pool": "t", "thin": "V", "linear": "-"}[options["--type"][0]]
        volumes[name] = {"size": size, "kind": kind, "active": kind == "t", **made}
        self._data(group, name).parent.mkdir(parents=True, exist_ok=True)
        with self._data(group, name).open("wb") as data:
            data.truncate(0 if kind == "t" else size)

    def _lvchange(self, state: dict[str, Any], options: dict[str, list[str]], names: list[str]) -> None:
        group, volume = self._volume(state, names[0])
        kept = [tag for tag in volume["tags"] if tag not in options.get("--deltag", [])]
        volume["tags"] = kept + options.get("--addtag", [])
        if any(len(tag) > 1024 for tag in volume["tags"]):
            raise _Refused("Tag too long.")
        name = names[0].partition("/")[2]
        node = self.nodes / group / name
        if "--activate" in options:
            volume["active"] = options["--activate"] == ["y"]
        if volume["kind"] == "t":
            return
        match options.get("--activate"):
            case ["y"] if not node.exists():
                node.parent.mkdir(parents=True, exist_ok=True)
                node.hardlink_to(self._data(group, name))
            case ["n"]:
                node.unlink(missing_ok=True)

    def _lvextend(self, state: dict[str, Any], options: dict[str, list[str]], names: list[str]) -> None:
        group, volume = self._volume(state, names[0])
        volume["size"] = self._size(options)
        with self._data(group, names[0].partition("/")[2]).open("r+b") as data:
            data.truncate(volume["size"])

    def _lvrename(self, state: dict[str, Any], _: dict[str, list[str]], names: list[str]) -> None:
        group, name, to = names
        volumes = _group(state, group)["volumes"]
        volumes[to] = volumes.pop(name)
        self._data(group, name).rename(self._data(group, to))

    def _lvremove(self, state: dict[str, Any], _: dict[str, list[str]], names: list[str]) -> None:
        group, _volume = self._volume(state, names[0])
        name = names[0].partition("/")[2]
        del state[group]["volumes"][name]
        self._data(group, name).unlink()
        (self.nodes / group / name).unlink(missing_ok=True)

    def _volume(self, state: dict[str, Any], path: str) -> tuple[str, dict[str, Any]]:
        group, _, name = path.partition("/")
        try:
            return group, _group(state, group)["volumes"][name]
        except KeyError:
            raise _Refused(f'Failed to find logical volume "{path}"') from None

    def _size(self, options: dict[str, list[str]]) -> int:
        (text,) = options.get("--size") or options["--virtualsize"]
        return -(-int(text.removesuffix("b")) // self._extent) * self._extent

    def _data(self, group: str, name: str) -> Path:
        return self._folder / "data" / group / name


class _Refused(Exception):
    pass


def _group(state: dict[str, Any], name: str) -> Any:
    if name not in state:
        raise _Refused(f'Volume group "{name}" not found')
    return state[name]


def _parse(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    options: dict[str, list[str]] = {}
    names: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in FLAGS:
            continue
        if word.startswith("--"):
            options.setdefault(word, []).append(next(rest))
        else:
            names.append(word)
    return options, names
