"""The real client, as a user of the pool would write it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
import urllib.request
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import XenAPI

from pool import plan
from tests.support.pool import PoolUnderTest

CALL_TIMEOUT = 120.0
"""Seconds that one JSON-RPC call may take."""


@contextmanager
def logged_in(pool: PoolUnderTest) -> Iterator[Any]:
    """A root session on the coordinator; its calls are `session.xenapi`."""
    session = XenAPI.Session(pool.url, ignore_ssl=True)
    session.login_with_password("root", pool.password, "1.0", "tests")
    try:
        yield session
    finally:
        session.xenapi.session.logout()


class _UnixSocket(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=CALL_TIMEOUT)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(CALL_TIMEOUT)
        connection.sock.connect(str(self._path))
        return connection


@contextmanager
def logged_in_on_the_host(pool: PoolUnderTest, name: str) -> Iterator[Any]:
    """A root session through that host's Unix socket, without a password."""
    session = XenAPI.Session("http://localhost", transport=_UnixSocket(plan.socket_path(pool.directory, name)))
    session.login_with_password("root", "", "1.0", "tests")
    try:
        yield session
    finally:
        session.xenapi.session.logout()


class JsonRpc:
    """JSON-RPC 2.0 over HTTP, with nothing but Python's own library. `headers` go with each call."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self._url = f"{url}/jsonrpc"
        self._headers = {"Content-Type": "application/json", **(headers or {})}

    def answer(self, method: str, *params: Any) -> dict[str, Any]:
        """The whole response object."""
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 7}).encode()
        request = urllib.request.Request(self._url, body, self._headers)
        with urllib.request.urlopen(request, timeout=CALL_TIMEOUT) as response:
            found: dict[str, Any] = json.load(response)
        return found

    def __call__(self, method: str, *params: Any) -> Any:
        answer = self.answer(method, *params)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]


def provisioned(api: Any, name: str) -> str:
    """A VM from the tiny guest's template."""
    vm: str = api.VM.clone(api.VM.get_by_name_label("Tiny guest")[0], name)
    api.VM.provision(vm)
    return vm


@contextmanager
def temporary_vm(api: Any, name: str, *, with_disk: bool = False) -> Iterator[str]:
    """A halted VM, with a disk or without any; gone afterwards, in whatever state it was."""
    vm = provisioned(api, name)
    disks: list[str] = []
    try:
        if with_disk:
            disks.append(disk(api, vm)[0])
        yield vm
    finally:
        remove(api, vm, *disks)


def disk(api: Any, vm: str, size: int = 64 << 20) -> tuple[str, str]:
    """A disk on the default SR, attached to the VM as device 0. (VDI, VBD)"""
    pool = next(iter(api.pool.get_all_records().values()))
    vdi = api.VDI.create(
        {
            "name_label": "disk",
            "name_description": "",
            "SR": pool["default_SR"],
            "virtual_size": str(size),
            "type": "user",
            "sharable": False,
            "read_only": False,
            "other_config": {},
        }
    )
    vbd = api.VBD.create(
        {
            "VM": vm,
            "VDI": vdi,
            "userdevice": "0",
            "bootable": False,
            "mode": "RW",
            "type": "Disk",
            "empty": False,
            "other_config": {},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        }
    )
    return vdi, vbd


def interface(api: Any, vm: str, device: str = "0") -> str:
    """A VIF on the pool-wide network."""
    network = next(ref for ref, row in api.network.get_all_records().items() if row["bridge"] == "xenbr0")
    vif: str = api.VIF.create(
        {
            "VM": vm,
            "network": network,
            "device": device,
            "MAC": "",
            "MTU": "1500",
            "other_config": {},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        }
    )
    return vif


class Events:
    """What `event.from` tells about some classes or objects, from now on (or `from_the_beginning`)."""

    def __init__(self, api: Any, *classes: str, from_the_beginning: bool = False) -> None:
        self._api = api
        self._classes = list(classes)
        self._token = ""
        if not from_the_beginning:
            self.next(0.0)

    def next(self, seconds: float) -> list[dict[str, Any]]:
        """The next batch; empty when nothing happens for so long."""
        batch = getattr(self._api.event, "from")(self._classes, self._token, seconds)
        self._token = batch["token"]
        events: list[dict[str, Any]] = batch["events"]
        return events

    def until(self, done: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Looks again each time something happened."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not {what} within {seconds:g} s"
            self.next(5.0)


class PowerStates:
    """A VM's power states as `event.from` tells them."""

    def __init__(self, api: Any, vm: str) -> None:
        self._events = Events(api, f"vm/{vm}", from_the_beginning=True)
        self.seen: list[str] = []

    def wait_for(self, state: str, seconds: float = 60.0) -> None:
        for _ in range(int(seconds / 5) + 1):
            self.seen += [event["snapshot"]["power_state"] for event in self._events.next(5.0) if "snapshot" in event]
            if self.seen and self.seen[-1] == state:
                return
        raise AssertionError(f"never {state}, only {self.seen}")


def finished(api: Any, task: str, seconds: float = 60.0) -> dict[str, Any]:
    """The task's record once it is not pending any more; the task is destroyed."""
    events = Events(api, f"task/{task}", from_the_beginning=True)
    events.until(lambda: api.task.get_status(task) != "pending", f"the end of task {task}", seconds)
    row: dict[str, Any] = api.task.get_record(task)
    api.task.destroy(task)
    return row


def read_console(session: Any, vm: str, until: str, timeout: float = 90.0) -> str:
    """The serial console's output up to the text `until`, through the console's location."""
    api = session.xenapi
    consoles = [api.console.get_record(ref) for ref in api.VM.get_consoles(vm)]
    location = urlsplit(next(row["location"] for row in consoles if row["protocol"] == "vt100"))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = (location.hostname or "", location.port or 443)
    with socket.create_connection(address, timeout) as raw, context.wrap_socket(raw) as connection:
        request = f"CONNECT {location.path}?{location.query}&session_id={session._session} HTTP/1.0\r\n\r\n"
        connection.sendall(request.encode())
        text = b""
        while until.encode() not in text:
            received = connection.recv(4096)
            if not received:
                raise AssertionError(f"the console was closed after {text!r}")
            text += received
    head, _, body = text.partition(b"\r\n\r\n")
    assert b" 200 OK" in head.splitlines()[0]
    return body.decode(errors="replace")


def remove(api: Any, vm: str, *disks: str) -> None:
    """The VM and its disks, whatever state it is in."""
    if api.VM.get_power_state(vm) not in ("Halted", "Suspended"):
        with suppress(XenAPI.Failure):  # it may halt by itself just now; if not, `destroy` says so
            api.VM.hard_shutdown(vm)
    api.VM.destroy(vm)
    for vdi in disks:
        api.VDI.destroy(vdi)
