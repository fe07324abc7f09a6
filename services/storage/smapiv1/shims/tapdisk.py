"""A tapdisk: a process that serves disks, and is told by tap-ctl which ones and when.

It is of its own session and ends with its last disk, on SIGTERM, or when it is killed; QEMU depends on it, so it
outlives the service. Requests of tap-ctl have a thread each: one that waits (pause) holds nobody else up.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

from services.storage.formats.interface import FormatError
from services.storage.smapiv1.shims import control
from services.storage.smapiv1.shims.control import CLOSED, PAUSE_REQUESTED, PAUSED, Row
from services.storage.smapiv1.shims.disks import KINDS, open_disk
from services.storage.smapiv1.shims.export import Export, listen
from services.storage.smapiv1.shims.program import Failed, status, words

_UNUSED_FOR: Final = 60.0
"""Seconds after which one that never got a disk ends: who has started it was killed."""


class Vbd:
    """One minor. Its commands are carried out one after the other."""

    def __init__(self, pid: int, minor: int) -> None:
        self._pid, self.minor = pid, minor
        self.state = CLOSED
        self.kind, self.path, self._log = "", "", ""
        self._writable = False
        self._export: Export | None = None
        self.busy = threading.Lock()

    def row(self) -> Row:
        found: Row = {"minor": self.minor, "state": self.state}
        if self.kind:
            found["args"] = f"{self.kind}:{self.path}"
        return found

    def open(self, args: str, readonly: bool, log: str) -> None:
        """Raises EBUSY if it is open already, EINVAL for a type that is not known, and what opening raises."""
        if self._export is not None:
            raise Failed(errno.EBUSY, f"minor {self.minor} is open")
        kind, path = _parsed(args)
        disk = open_disk(kind, path, not readonly, log)
        try:
            self._export = Export(control.nbd_socket(self._pid, self.minor), disk, not readonly)
        except BaseException:
            disk.close()
            raise
        self.kind, self.path, self._log, self._writable = kind, path, log, not readonly
        self.state = 0

    def close(self, timeout: float | None = None) -> None:
        """Without effect if it is not open. Raises ETIMEDOUT, and stays open."""
        if self._export is None:
            return
        self._export.close(timeout)
        try:
            if not self.state & PAUSED:
                self._export.disk.close()
        finally:
            self._export, self.state, self.kind, self.path = None, CLOSED, "", ""

    def pause(self, timeout: float | None = None) -> None:
        """When it returns, nobody reads or writes the image, and what was written is in it.

        Raises ETIMEDOUT, and what a failed flush raises; the disk is open then.
        """
        export = self._opened()
        if self.state & PAUSED:
            return
        self.state |= PAUSE_REQUESTED
        try:
            export.gate.shut(timeout)
            try:
                export.disk.flush()
            except BaseException:
                export.gate.open()
                raise
            export.disk.close()
            self.state = PAUSED
        finally:
            self.state &= ~PAUSE_REQUESTED

    def unpause(self, args: str, log: str) -> None:
        """`args`, `log`: "" for what they were. Stays paused if the disk cannot be opened. Raises what that raises."""
        export = self._opened()
        if not self.state & PAUSED:
            raise Failed(errno.EINVAL, f"minor {self.minor} is not paused")
        kind, path = _parsed(args) if args else (self.kind, self.path)
        export.disk = open_disk(kind, path, self._writable, log or self._log)
        self.kind, self.path, self._log = kind, path, log or self._log
        self.state = 0
        export.gate.open()

    def stats(self) -> dict[str, Any]:
        export = self._opened()
        sectors = [export.sectors_read, export.sectors_written]
        image = {
            "name": self.path,
            "hits": sectors,
            "fail": [export.failures, 0],
            "driver": {"type": KINDS.index(self.kind), "name": self.kind, "status": None},
        }
        return {
            "name": f"{self.kind}:{self.path}",
            "secs": sectors,
            "images": [image],
            "FIXME_enospc_redirect_count": 0,
            "nbd_mirror_failed": 0,
            "reqs_outstanding": export.gate.inside,
            "read_caching": "false",
        }

    def _opened(self) -> Export:
        if self._export is None:
            raise Failed(errno.ENODEV, f"minor {self.minor} is not open")
        return self._export


def _parsed(args: str) -> tuple[str, str]:
    kind, _, path = args.partition(":")
    if kind not in KINDS or not path:
        raise Failed(errno.EINVAL, f"{args}: not {' or '.join(f'{kind}:PATH' for kind in KINDS)}")
    return kind, path


class Tapdisk:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self._vbds: dict[int, Vbd] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._commands: dict[str, Callable[[dict[str, Any]], Any]] = {
            "list": lambda _: [vbd.row() for vbd in list(self._vbds.values())],
            "attach": self._attach,
            "detach": self._detach,
            "open": lambda asked: self._of(asked).open(asked["args"], asked["readonly"], asked["log"]),
            "close": lambda asked: self._of(asked).close(asked["timeout"]),
            "pause": lambda asked: self._of(asked).pause(asked["timeout"]),
            "unpause": lambda asked: self._of(asked).unpause(asked["args"], asked["log"]),
            "stats": lambda asked: self._of(asked).stats(),
        }

    def run(self, listener: socket.socket) -> None:
        """Until there is nothing left to serve."""
        signal.signal(signal.SIGTERM, lambda *_: self._over.set())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._accept, args=(listener,), name="control", daemon=True).start()
        unused = threading.Timer(_UNUSED_FOR, self._end_if_unused)
        unused.daemon = True
        unused.start()
        self._over.wait()
        with suppress(FileNotFoundError):
            os.unlink(control.control_socket(self.pid))
        for vbd in list(self._vbds.values()):
            with vbd.busy, suppress(OSError, FormatError):
                vbd.close()

    def _end_if_unused(self) -> None:
        if not self._vbds:
            self._over.set()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=self._answer, args=(client,), name="request", daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):  # tap-ctl was killed
            with client.makefile("rb") as file:
                line = file.readline()
            if line.endswith(b"\n"):
                asked = json.loads(line)
                client.sendall(json.dumps(self._carry_out(asked)).encode() + b"\n")
                if asked["do"] == "detach" and not self._vbds:
                    self._over.set()

    def _carry_out(self, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            vbd = self._vbds.get(asked.get("minor", -1))
            if vbd is None or asked["do"] in ("list", "stats"):
                value = self._commands[asked["do"]](asked)
            else:
                with vbd.busy:
                    value = self._commands[asked["do"]](asked)
            return {"status": 0, "words": "", "value": value}
        except (Failed, FormatError, OSError) as error:
            return {"status": status(error), "words": words(error), "value": None}

    def _of(self, asked: dict[str, Any]) -> Vbd:
        vbd = self._vbds.get(asked["minor"])
        if vbd is None:
            raise Failed(errno.ENODEV, f"it does not have minor {asked['minor']}")
        return vbd

    def _attach(self, asked: dict[str, Any]) -> None:
        with self._lock:
            if asked["minor"] in self._vbds:
                raise Failed(errno.EEXIST, f"it has minor {asked['minor']} already")
            self._vbds[asked["minor"]] = Vbd(self.pid, asked["minor"])

    def _detach(self, asked: dict[str, Any]) -> None:
        vbd = self._of(asked)
        if vbd.state != CLOSED:
            raise Failed(errno.EBUSY, f"minor {vbd.minor} is open")
        with self._lock:
            del self._vbds[vbd.minor]


def spawn() -> int:
    """Starts a tapdisk of which nobody is the parent; it takes requests when this returns. Returns its process id."""
    os.makedirs(control.FOLDER, exist_ok=True)
    sys.stdout.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _detached(reading, writing)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as file:
        said = file.read()
    if not said.isdecimal():
        raise Failed(errno.EIO, f"the tapdisk has not started: {said or 'it does not say why'}")
    return int(said)


def _detached(reading: int, writing: int) -> NoReturn:
    """In the child: never returns."""
    try:
        os.setsid()
        if not os.fork():
            os.close(reading)
            _serve(writing)
    finally:
        os._exit(0)


def _serve(writing: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    # What the driver had open is not ours to keep open: its locks go with it.
    os.closerange(3, writing)
    os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    with open("/proc/self/comm", "w") as file:
        file.write("tapdisk")
    try:
        tapdisk = Tapdisk()
        listener = listen(control.control_socket(tapdisk.pid))
    except OSError as error:
        os.write(writing, words(error).encode())
        return
    os.write(writing, str(tapdisk.pid).encode())
    os.close(writing)
    tapdisk.run(listener)
