"""The real client, as a user of the pool would write it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import XenAPI

from tests.support.pool import PoolUnderTest


@contextmanager
def logged_in(pool: PoolUnderTest) -> Iterator[Any]:
    """`session.xenapi` of a root session on the coordinator; `api.ref` would be its reference."""
    session = XenAPI.Session(pool.url, ignore_ssl=True)
    session.login_with_password("root", pool.password, "1.0", "tests")
    try:
        yield session
    finally:
        session.xenapi.session.logout()


def provisioned(api: Any, name: str, **fields: Any) -> str:
    """A VM from the tiny guest's template."""
    vm: str = api.VM.clone(api.VM.get_by_name_label("Tiny guest")[0], name)
    api.VM.provision(vm)
    return vm


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


class PowerStates:
    """A VM's power states as `event.from` tells them."""

    def __init__(self, api: Any, vm: str) -> None:
        self._api = api
        self._vm = vm
        self._token = ""
        self.seen: list[str] = []

    def wait_for(self, state: str, seconds: float = 60.0) -> None:
        for _ in range(int(seconds / 5) + 1):
            batch = getattr(self._api.event, "from")([f"vm/{self._vm}"], self._token, 5.0)
            self._token = batch["token"]
            self.seen += [event["snapshot"]["power_state"] for event in batch["events"] if "snapshot" in event]
            if self.seen and self.seen[-1] == state:
                return
        raise AssertionError(f"never {state}, only {self.seen}")


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
        api.VM.hard_shutdown(vm)
    api.VM.destroy(vm)
    for vdi in disks:
        api.VDI.destroy(vdi)
