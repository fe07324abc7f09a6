#!/usr/bin/python3
# mypy: ignore-errors
"""A volume plug-in for SMAPIv3, to begin one's own with: an SR is a folder, a volume in it a qcow2 image.

It is run by the names of the functions that it has, `Volume.create` and so on (see docs/storage-plugins.md). What it
does not have, such as Volume.copy and Volume.compare, the toolstack does in another way or refuses.
"""

import fcntl
import json
import os
import sys
import uuid as uuids
from contextlib import contextmanager

import xapi
from xapi.storage import log
from xapi.storage.api.v5.plugin import Plugin_commandline, Plugin_skeleton
from xapi.storage.api.v5.volume import (
    Activated_on_another_host,
    SR_commandline,
    SR_does_not_exist,
    SR_skeleton,
    Volume_commandline,
    Volume_does_not_exist,
    Volume_skeleton,
)
from xapi.storage.common import call

HOST = os.environ.get("INSTALLATION_UUID", "")
MARKER = "sr.json"


class Plugin(Plugin_skeleton):
    def query(self, dbg):
        return {
            "plugin": "qcow",
            "name": "qcow2 images",
            "description": "An example: qcow2 images in a folder, served by qemu-nbd",
            "vendor": "",
            "copyright": "LGPL-2.1-only",
            "version": "1.0",
            "required_api_version": "5.0",
            "features": ["VDI_ACTIVATE_READONLY"],
            "configuration": {"path": "absolute path of a folder"},
            "required_cluster_stack": [],
        }


# -- files ------------------------------------------------------------------------------------------------------------


def read(path):
    with open(path) as file:
        return json.load(file)


def write(path, value):
    """Whole or not at all."""
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


@contextmanager
def locked(sr):
    """Nobody else changes the folder meanwhile: scripts run at the same time, and on several hosts."""
    with open(os.path.join(sr, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def image_of(sr, name):
    return os.path.join(sr, name + ".qcow2")


def about(sr, key):
    """The file that describes a volume. A key comes from outside: it must not lead out of the folder."""
    path = os.path.join(sr, key + ".json")
    if os.path.basename(path) != key + ".json" or not os.path.exists(path):
        raise Volume_does_not_exist(key)
    return path


def qemu_img(dbg, *words):
    """Its standard error becomes the error's text."""
    return call(dbg, ["qemu-img", *words])


def refuse_used(sr, key):
    """The datapath plug-in writes down who has an image open."""
    for name in os.listdir(sr):
        what, _, host = name.rpartition(".")
        if what in (key + ".qcow2.rw", key + ".qcow2.ro"):
            if host != HOST:
                raise Activated_on_another_host(host)
            raise xapi.XenAPIException("VDI_IN_USE", [key, "change"])


# -- SRs --------------------------------------------------------------------------------------------------------------


class SR(SR_skeleton):
    def create(self, dbg, uuid, configuration, name, description):
        path = configuration.get("path", "")
        if not path.startswith("/"):
            raise xapi.XenAPIException("SR_BACKEND_FAILURE_1", ["", "path must be an absolute path", ""])
        os.makedirs(path, exist_ok=True)
        write(os.path.join(path, MARKER), {"uuid": uuid, "name": name, "description": description})
        return configuration

    def attach(self, dbg, configuration):
        """What is returned is what all other functions get as `sr`."""
        path = configuration["path"]
        if not os.path.exists(os.path.join(path, MARKER)):
            raise SR_does_not_exist(path)
        return path

    def detach(self, dbg, sr):
        """Nothing was done for it."""

    def destroy(self, dbg, sr):
        for name in os.listdir(sr):
            os.unlink(os.path.join(sr, name))

    def stat(self, dbg, sr):
        space = os.statvfs(sr)
        return {
            "sr": sr,
            **read(os.path.join(sr, MARKER)),
            "free_space": space.f_bavail * space.f_frsize,
            "total_space": space.f_blocks * space.f_frsize,
            "datasources": [],
            "clustered": False,
            "health": ["Healthy", ""],
        }

    def ls(self, dbg, sr):
        keys = [name[:-5] for name in sorted(os.listdir(sr)) if name.endswith(".json") and name != MARKER]
        return [record(dbg, sr, key) for key in keys]


# -- volumes ----------------------------------------------------------------------------------------------------------


def record(dbg, sr, key):
    known = read(about(sr, key))
    image = image_of(sr, key)
    return {
        **known,
        "key": key,
        "uuid": key,
        "sharable": False,
        "physical_utilisation": os.stat(image).st_blocks * 512,
        "uri": ["qcow-nbd://" + image],
    }


class Volume(Volume_skeleton):
    def create(self, dbg, sr, name, description, size, sharable):
        key = str(uuids.uuid4())
        qemu_img(dbg, "create", "-q", "-f", "qcow2", image_of(sr, key), str(size))
        return self._added(dbg, sr, key, name, description, size, True)

    def snapshot(self, dbg, sr, key):
        return self._branch(dbg, sr, key, False)

    def clone(self, dbg, sr, key):
        return self._branch(dbg, sr, key, True)

    def _branch(self, dbg, sr, key, read_write):
        """Its image goes below two new ones."""
        with locked(sr):
            known = read(about(sr, key))
            refuse_used(sr, key)
            base, made = str(uuids.uuid4()), str(uuids.uuid4())
            os.link(image_of(sr, key), image_of(sr, base))
            for name in (made, key):
                draft = image_of(sr, name) + ".new"
                qemu_img(dbg, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base + ".qcow2", draft)
                os.replace(draft, image_of(sr, name))
            log.info("%s: %s and %s lie over %s", dbg, key, made, base)
            return self._added(dbg, sr, made, known["name"], known["description"], known["virtual_size"], read_write)

    def _added(self, dbg, sr, key, name, description, size, read_write):
        known = {
            "name": name,
            "description": description,
            "virtual_size": size,
            "read_write": read_write,
            "keys": {},
        }
        write(os.path.join(sr, key + ".json"), known)
        return record(dbg, sr, key)

    def destroy(self, dbg, sr, key):
        """Images below it that nobody else needs are left here: an example."""
        with locked(sr):
            path = about(sr, key)
            refuse_used(sr, key)
            os.unlink(path)
            os.unlink(image_of(sr, key))

    def resize(self, dbg, sr, key, new_size):
        with locked(sr):
            refuse_used(sr, key)
            qemu_img(dbg, "resize", "-q", "-f", "qcow2", image_of(sr, key), str(new_size))
            self._change(sr, key, virtual_size=new_size)

    def stat(self, dbg, sr, key):
        return record(dbg, sr, key)

    def set_name(self, dbg, sr, key, new_name):
        with locked(sr):
            self._change(sr, key, name=new_name)

    def set_description(self, dbg, sr, key, new_description):
        with locked(sr):
            self._change(sr, key, description=new_description)

    def set(self, dbg, sr, key, k, v):
        with locked(sr):
            self._change(sr, key, keys={**read(about(sr, key))["keys"], k: v})

    def unset(self, dbg, sr, key, k):
        with locked(sr):
            self._change(sr, key, keys={name: v for name, v in read(about(sr, key))["keys"].items() if name != k})

    def _change(self, sr, key, **changes):
        path = about(sr, key)
        write(path, {**read(path), **changes})


if __name__ == "__main__":
    interface, function = os.path.basename(sys.argv[0]).split(".")
    programs = {
        "Plugin": (Plugin_commandline, Plugin),
        "SR": (SR_commandline, SR),
        "Volume": (Volume_commandline, Volume),
    }
    commands, implementation = programs[interface]
    getattr(commands(implementation()), function)()
