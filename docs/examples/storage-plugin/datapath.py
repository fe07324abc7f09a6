#!/usr/bin/python3
# mypy: ignore-errors
"""A datapath plug-in for SMAPIv3, to begin one's own with: URIs `qcow-nbd://<image>`, served by a qemu-nbd each.

A script ends with each call; the server that it starts goes on until `deactivate`, whatever becomes of the toolstack.
"""

import fcntl
import hashlib
import os
import signal
import sys
import tempfile

from xapi.storage.api.v5.datapath import Datapath_commandline, Datapath_skeleton
from xapi.storage.api.v5.plugin import Plugin_commandline, Plugin_skeleton
from xapi.storage.api.v5.volume import Activated_on_another_host, Volume_does_not_exist
from xapi.storage.common import call

HOST = os.environ.get("INSTALLATION_UUID", "")


class Plugin(Plugin_skeleton):
    def query(self, dbg):
        return {
            "plugin": "qcow-nbd",
            "name": "qcow2 images by NBD",
            "description": "An example: a qemu-nbd for each image",
            "vendor": "",
            "copyright": "LGPL-2.1-only",
            "version": "1.0",
            "required_api_version": "5.0",
            "features": [],
            "configuration": {},
            "required_cluster_stack": [],
        }


def image_of(uri):
    image = uri.partition("://")[2]
    if not os.path.exists(image):
        raise Volume_does_not_exist(image)
    return image


def place(uri, what):
    """For this host's server of an image: sockets have short paths."""
    folder = os.path.join(tempfile.gettempdir(), f"qcow-nbd-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return os.path.join(folder, hashlib.sha1((HOST + uri).encode()).hexdigest()[:16] + what)


def running(uri):
    """The server's process id; None for none, or what is left of one."""
    try:
        with open(place(uri, ".pid")) as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline") as file:
            return pid if place(uri, ".sock") in file.read() else None
    except (OSError, ValueError):
        return None


class Datapath(Datapath_skeleton):
    """All of it may be repeated."""

    def attach(self, dbg, uri, domain):
        image_of(uri)
        return {"implementations": [["Nbd", {"uri": f"nbd:unix:{place(uri, '.sock')}:exportname=disk"}]]}

    def activate(self, dbg, uri, domain):
        self._activate(dbg, uri, "rw")

    def activate_readonly(self, dbg, uri, domain):
        self._activate(dbg, uri, "ro")

    def _activate(self, dbg, uri, how):
        image = image_of(uri)
        folder, name = os.path.split(image)
        with open(os.path.join(folder, ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for other in os.listdir(folder):
                mode, _, host = other[len(name) + 1 :].partition(".")
                if other.startswith(name + ".") and mode in ("rw", "ro") and host != HOST and "rw" in (mode, how):
                    raise Activated_on_another_host(host)
            open(f"{image}.{how}.{HOST}", "w").close()
        if running(uri) is None:
            options = ["--read-only"] if how == "ro" else ["--discard=unmap"]
            listening = [f"--socket={place(uri, '.sock')}", f"--pid-file={place(uri, '.pid')}", "--export-name=disk"]
            serving = ["--fork", "--persistent", "--shared=8", "--format=qcow2", *options, *listening, image]
            call(dbg, ["qemu-nbd", *serving])

    def deactivate(self, dbg, uri, domain):
        """Also when the image has vanished."""
        pid = running(uri)
        if pid is not None:
            ended = os.pidfd_open(pid)
            signal.pidfd_send_signal(ended, signal.SIGTERM)
            wait(ended)
        for what in (".sock", ".pid"):
            remove(place(uri, what))
        for how in ("rw", "ro"):
            remove(f"{uri.partition('://')[2]}.{how}.{HOST}")

    def detach(self, dbg, uri, domain):
        """Nothing is left."""


def wait(process):
    import select

    select.select([process], [], [])
    os.close(process)


def remove(path):
    if os.path.lexists(path):
        os.unlink(path)


if __name__ == "__main__":
    interface, function = os.path.basename(sys.argv[0]).split(".")
    programs = {"Plugin": (Plugin_commandline, Plugin), "Datapath": (Datapath_commandline, Datapath)}
    commands, implementation = programs[interface]
    getattr(commands(implementation()), function)()
