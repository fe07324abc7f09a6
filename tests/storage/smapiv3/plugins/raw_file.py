# mypy: ignore-errors
"""A datapath plug-in: raw files as they are (`raw+file`), behind loop devices (`loop+file`), and such as forget.

Who has a file activated is written next to it, by host: of hosts that share the folder, one writes or several read.
"""

import fcntl
import os
import subprocess
import sys

from xapi.storage.api.v5.datapath import Data_commandline, Data_skeleton, Datapath_commandline, Datapath_skeleton
from xapi.storage.api.v5.plugin import Plugin_commandline, Plugin_skeleton
from xapi.storage.api.v5.volume import Activated_on_another_host, Volume_does_not_exist

HOST = os.environ.get("INSTALLATION_UUID", "")
SCHEME = os.path.basename(os.path.dirname(os.path.abspath(sys.argv[0])))


class Plugin(Plugin_skeleton):
    def query(self, dbg):
        return {
            "plugin": SCHEME,
            "name": "Raw files",
            "description": "Raw files, as they are or behind loop devices",
            "vendor": "tests",
            "copyright": "LGPL-2.1-only",
            "version": "1.0",
            "required_api_version": "5.0",
            "features": ["NONPERSISTENT"] if SCHEME == "forgetful+file" else [],
            "configuration": {},
            "required_cluster_stack": [],
        }


def path_of(uri):
    path = uri.partition("://")[2]
    if not os.path.exists(path):
        raise Volume_does_not_exist(path)
    return path


def said(uri, what):
    """For the tests to see."""
    with open(uri.partition("://")[2] + ".said", "a") as log:
        log.write(what + "\n")


class Datapath(Datapath_skeleton):
    def open(self, dbg, uri, persistent):
        said(uri, f"open {persistent}")

    def close(self, dbg, uri):
        said(uri, "close")

    def attach(self, dbg, uri, domain):
        path = path_of(uri)
        said(uri, f"attach {domain}")
        if SCHEME != "loop+file":
            nbd = {"uri": "nbd:unix:/run/nobody:exportname=x"}
            disk = {"params": path, "extra": {}, "backend_type": "vbd"}
            return {"implementations": [["XenDisk", disk], ["Nbd", nbd], ["File", {"path": path}]]}
        device = self._device(path) or self._losetup("--find", "--show", path)
        return {"implementations": [["BlockDevice", {"path": device}]]}

    def activate(self, dbg, uri, domain):
        self._activate(uri, "rw")

    def activate_readonly(self, dbg, uri, domain):
        self._activate(uri, "ro")

    def _activate(self, uri, how):
        path = path_of(uri)
        folder, name = os.path.split(path)
        with open(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for other in os.listdir(folder):
                mode, _, host = other[len(name) + 1 :].partition(".")
                if other.startswith(name + ".") and host and host != HOST and "rw" in (mode, how):
                    raise Activated_on_another_host(host)
            open(f"{path}.{how}.{HOST}", "w").close()

    def deactivate(self, dbg, uri, domain):
        for how in ("rw", "ro"):
            try:
                os.unlink(f"{uri.partition('://')[2]}.{how}.{HOST}")
            except FileNotFoundError:
                continue

    def detach(self, dbg, uri, domain):
        path = path_of(uri)
        said(uri, f"detach {domain}")
        device = self._device(path) if SCHEME == "loop+file" else ""
        if device:
            self._losetup("--detach", device)

    def _device(self, path):
        return self._losetup("--noheadings", "--output", "NAME", "--associated", path)

    def _losetup(self, *arguments):
        return subprocess.run(["losetup", *arguments], stdout=subprocess.PIPE, check=True).stdout.decode().strip()


class Data(Data_skeleton):
    def mirror(self, dbg, uri, domain, remote):
        said(uri, f"mirror {domain} to {remote}")
        return ["MirrorV1", "m1"]

    def stat(self, dbg, operation):
        return {"failed": False, "complete": operation == ["MirrorV1", "m1"], "progress": 0.5}


def main():
    interface, function = os.path.basename(sys.argv[0]).split(".")
    command = {
        "Plugin": lambda: Plugin_commandline(Plugin()),
        "Datapath": lambda: Datapath_commandline(Datapath()),
        "Data": lambda: Data_commandline(Data()),
    }[interface]()
    getattr(command, function.lower())()
