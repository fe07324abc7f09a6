# mypy: ignore-errors
"""A volume plug-in: an SR is a folder, a volume in it a raw file and a JSON file. One program, called by many names.

Written to the contract of SMAPIv3 with nothing but the bindings; hosts that share the folder respect each other.
"""

import fcntl
import json
import os
import sys
from contextlib import contextmanager

import xapi
from xapi.storage.api.v5 import volume as v5
from xapi.storage.api.v5.plugin import Plugin_commandline, Plugin_skeleton

HOST = os.environ.get("INSTALLATION_UUID", "")


class Plugin(Plugin_skeleton):
    def query(self, dbg):
        return {
            "plugin": "simple-file",
            "name": "Simple files",
            "description": "Raw files in a folder",
            "vendor": "tests",
            "copyright": "LGPL-2.1-only",
            "version": "1.0",
            "required_api_version": "5.0",
            "features": ["VDI_DESTROY", "VDI_ACTIVATE_READONLY", "VDI_TELEPORT", "VDI_CONFIG_CBT/0"],
            "configuration": {"location": "path of the folder"},
            "required_cluster_stack": [],
        }

    def diagnostics(self, dbg):
        return "nothing to say"


def failure(number, text):
    return xapi.XenAPIException(f"SR_BACKEND_FAILURE_{number}", ["", text, ""])


def folder_of(configuration):
    if "location" not in configuration:
        raise failure(94, "The location is missing")
    if not configuration["location"].startswith("/"):
        raise failure(1, "The location is not an absolute path")
    return configuration["location"]


def read(path):
    with open(path) as file:
        return json.load(file)


def write(path, value):
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


@contextmanager
def locked(folder):
    with open(os.path.join(folder, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class SR(v5.SR_skeleton):
    def probe(self, dbg, configuration):
        folder = folder_of(configuration)
        if not os.path.exists(os.path.join(folder, ".sr")):
            return [{"configuration": configuration, "complete": True, "extra_info": {}}]
        found = {**configuration, "sr_uuid": read(os.path.join(folder, ".sr"))["uuid"]}
        return [{"configuration": found, "complete": True, "sr": self.stat(dbg, folder), "extra_info": {}}]

    def create(self, dbg, uuid, configuration, name, description):
        folder = folder_of(configuration)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise failure(61, str(error)) from error
        write(os.path.join(folder, ".sr"), {"uuid": uuid, "name": name, "description": description})
        return configuration

    def attach(self, dbg, configuration):
        folder = folder_of(configuration)
        if not os.path.exists(os.path.join(folder, ".sr")):
            raise v5.SR_does_not_exist(folder)
        return folder

    def detach(self, dbg, sr):
        pass

    def destroy(self, dbg, sr):
        for name in os.listdir(sr):
            os.unlink(os.path.join(sr, name))

    def stat(self, dbg, sr):
        if not os.path.isdir(sr):
            raise v5.SR_does_not_exist(sr)
        known = read(os.path.join(sr, ".sr"))
        space = os.statvfs(sr)
        return {
            "sr": sr,
            **known,
            "free_space": space.f_bfree * space.f_frsize,
            "total_space": space.f_blocks * space.f_frsize,
            "datasources": [],
            "clustered": False,
            "health": self._health(os.path.join(sr, ".health")),
        }

    def _health(self, path):
        """As a test wants it to be, look by look."""
        states = read(path) if os.path.exists(path) else []
        if not states:
            return ["Healthy", ""]
        write(path, states[1:])
        return states[0]

    def set_name(self, dbg, sr, new_name):
        write(os.path.join(sr, ".sr"), {**read(os.path.join(sr, ".sr")), "name": new_name})

    def set_description(self, dbg, sr, new_description):
        write(os.path.join(sr, ".sr"), {**read(os.path.join(sr, ".sr")), "description": new_description})

    def ls(self, dbg, sr):
        if not os.path.isdir(sr):
            raise v5.SR_does_not_exist(sr)
        return [record(sr, name[:-5]) for name in sorted(os.listdir(sr)) if name.endswith(".json")]


def paths(sr, key):
    """Raises Volume_does_not_exist. A key comes from anywhere."""
    if len(key) != 32 or not set(key) <= set("0123456789abcdef"):
        raise v5.Volume_does_not_exist(key)
    base = os.path.join(sr, key)
    if not os.path.exists(base + ".json"):
        raise v5.Volume_does_not_exist(key)
    return base + ".raw", base + ".json"


def record(sr, key):
    data, about = paths(sr, key)
    status = os.stat(data)
    return {
        **read(about),
        "key": key,
        "sharable": False,
        "virtual_size": status.st_size,
        "physical_utilisation": status.st_blocks * 512,
        "uri": ["tape:///" + key, "raw+file://" + data],
    }


def refuse_used(data, writers_only=False):
    for holder in os.listdir(os.path.dirname(data)):
        if holder.startswith(os.path.basename(data) + ".rw.") or (
            holder.startswith(os.path.basename(data) + ".ro.") and not writers_only
        ):
            host = holder.rpartition(".")[2]
            if host != HOST:
                raise v5.Activated_on_another_host(host)


class Volume(v5.Volume_skeleton):
    def create(self, dbg, sr, name, description, size, sharable):
        if size <= 0:
            raise failure(79, "a volume of no size")
        if not os.path.isdir(sr):
            raise failure(47, "the folder is gone")
        return self._add(sr, {"name": name, "description": description, "read_write": True}, size)

    def snapshot(self, dbg, sr, key):
        return self._branch(sr, key, False)

    def clone(self, dbg, sr, key):
        return self._branch(sr, key, True)

    def copy(self, dbg, sr, key, dest_sr):
        return self._branch(sr, key, True, dest_sr)

    def _branch(self, sr, key, read_write, dest_sr=""):
        data, about = paths(sr, key)
        refuse_used(data, writers_only=True)
        like = {name: read(about)[name] for name in ("name", "description")}
        return self._add(dest_sr or sr, {**like, "read_write": read_write}, os.path.getsize(data), data)

    def _add(self, sr, about, size, source=None):
        key = os.urandom(16).hex()
        path = os.path.join(sr, key)
        with open(path + ".raw", "wb") as data:
            if source:
                with open(source, "rb") as original:
                    while os.sendfile(data.fileno(), original.fileno(), None, 1 << 24):
                        pass
            os.truncate(data.fileno(), size)
        write(path + ".json", {**about, "keys": {}})
        return record(sr, key)

    def destroy(self, dbg, sr, key):
        data, about = paths(sr, key)
        refuse_used(data)
        os.unlink(about)
        os.unlink(data)

    def revert(self, dbg, sr, snapshot, key):
        source, (data, _) = paths(sr, snapshot)[0], paths(sr, key)
        refuse_used(data)
        with open(source, "rb") as original, open(data + ".new", "wb") as target:
            target.write(original.read())
        os.replace(data + ".new", data)

    def resize(self, dbg, sr, key, new_size):
        data, about = paths(sr, key)
        if not read(about)["read_write"]:
            raise xapi.XenAPIException("VDI_READONLY", [key])
        if new_size < os.path.getsize(data):
            raise failure(79, "a volume does not shrink")
        refuse_used(data)
        os.truncate(data, new_size)

    def stat(self, dbg, sr, key):
        return record(sr, key)

    def set_name(self, dbg, sr, key, new_name):
        self._change(sr, key, {"name": new_name})

    def set_description(self, dbg, sr, key, new_description):
        self._change(sr, key, {"description": new_description})

    def _change(self, sr, key, changes):
        with locked(sr):
            about = paths(sr, key)[1]
            write(about, {**read(about), **changes})

    def set(self, dbg, sr, key, k, v):
        with locked(sr):
            about = paths(sr, key)[1]
            known = read(about)
            write(about, {**known, "keys": {**known["keys"], k: v}})

    def unset(self, dbg, sr, key, k):
        with locked(sr):
            about = paths(sr, key)[1]
            known = read(about)
            write(about, {**known, "keys": {name: v for name, v in known["keys"].items() if name != k}})

    def compare(self, dbg, sr, key, key2):
        blocksize = 4096
        with open(paths(sr, key)[0], "rb") as one, open(paths(sr, key2)[0], "rb") as other:
            blocks = iter(lambda: (one.read(blocksize), other.read(blocksize)), (b"", b""))
            ranges = [[number, 1] for number, (this, that) in enumerate(blocks) if this != that]
        return {"blocksize": blocksize, "ranges": ranges}

    def similar_content(self, dbg, sr, key):
        return [each["key"] for each in SR().ls(dbg, sr) if each["key"] != key]

    def list_changed_blocks(self, dbg, sr, key, key2, offset, length):
        return {"granularity": 65536, "bitmap": "gA=="}

    def data_destroy(self, dbg, sr, key):
        os.truncate(paths(sr, key)[0], 0)


def main():
    interface, function = os.path.basename(sys.argv[0]).split(".")
    command = {
        "Plugin": lambda: Plugin_commandline(Plugin()),
        "SR": lambda: v5.SR_commandline(SR()),
        "Volume": lambda: v5.Volume_commandline(Volume()),
    }[interface]()
    getattr(command, function.lower())()
