"""What real guests and their processes do by themselves, and what survives the services."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pool import processes
from tests.e2e import client
from tests.pool.conditions import eventually
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.qemu, pytest.mark.timeout(400)]

BOOT = 120.0
"""Seconds to the login banner without KVM on a busy machine."""
NOTICED = 30.0


class Machine:
    """A running VM with a disk and an interface."""

    def __init__(self, pool: PoolUnderTest, session: Any, name: str) -> None:
        self.pool = pool
        self.session = session
        self.api = session.xenapi
        self.ref = client.provisioned(self.api, name)
        self.vdi, self.vbd = client.disk(self.api, self.ref)
        self.vif = client.interface(self.api, self.ref)

    def start(self) -> None:
        """On the second host, so that what is killed there is not the coordinator."""
        host = self.api.host.get_by_name_label("host2")[0]
        self.api.VM.start_on(self.ref, host, False, False)

    @property
    def state(self) -> str:
        return str(self.api.VM.get_power_state(self.ref))

    @property
    def domid(self) -> int:
        return int(self.api.VM.get_domid(self.ref))

    @property
    def process(self) -> int:
        """Pid of its QEMU; 0 when there is none."""
        uuid = self.api.VM.get_uuid(self.ref)
        return next((pid for pid in processes.marked(self.pool.directory) if uuid in processes.command_line(pid)), 0)

    @contextmanager
    def console(self) -> Iterator[socket.socket]:
        rows = [self.api.console.get_record(ref) for ref in self.api.VM.get_consoles(self.ref)]
        location = urlsplit(next(row["location"] for row in rows if row["protocol"] == "vt100"))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        address = (location.hostname or "", location.port or 443)
        with socket.create_connection(address, BOOT) as raw, context.wrap_socket(raw) as connection:
            request = f"CONNECT {location.path}?{location.query}&session_id={self.session._session} HTTP/1.0\r\n\r\n"
            connection.sendall(request.encode())
            yield connection

    def wait_for(self, state: str) -> None:
        eventually(f"it is {state}", lambda: self.state == state, NOTICED)


def expect(connection: socket.socket, text: str) -> None:
    seen = b""
    while text.encode() not in seen:
        received = connection.recv(4096)
        assert received, f"the console was closed after {seen!r}"
        seen += received


def taps(pool: PoolUnderTest) -> set[str]:
    """Interfaces of the pool's hosts that are no bridges."""
    prefixes = tuple(host.device_prefix for host in pool.plan.hosts)
    links = Path("/sys/class/net").iterdir()
    return {link.name for link in links if link.name.startswith(prefixes) and not (link / "bridge").exists()}


@pytest.fixture
def machine(qemu_pool: PoolUnderTest) -> Iterator[Machine]:
    qemu_pool.wait_ready()
    with client.logged_in(qemu_pool) as session:
        made = Machine(qemu_pool, session, "attacked")
        yield made
        client.remove(made.api, made.ref, made.vdi)
    assert taps(qemu_pool) == set()


def test_a_vm_outlives_its_service_and_a_guest_that_powers_off_is_noticed(machine: Machine) -> None:
    machine.start()
    before, process = machine.domid, machine.process
    pid = machine.pool.kill("vm", "host2")
    machine.pool.wait_restarted("vm", "host2", other_than=pid)
    machine.pool.wait_ready()
    with machine.console() as console:
        expect(console, "login:")
        assert (machine.domid, machine.process, machine.state) == (before, process, "Running")
        console.sendall(b"root\r")
        expect(console, "#")
        console.sendall(b"poweroff\r")
        machine.wait_for("Halted")
    assert machine.process == 0
    assert machine.api.VBD.get_currently_attached(machine.vbd) is False
    assert machine.api.VM.get_consoles(machine.ref) == []
    machine.start()  # nothing of the first life is in the way of the second
    assert machine.domid != before


def test_a_hypervisor_that_is_killed_is_noticed(machine: Machine) -> None:
    machine.api.VM.set_actions_after_crash(machine.ref, "destroy")
    machine.start()
    os.kill(machine.process, signal.SIGKILL)
    machine.wait_for("Halted")
    assert machine.api.VM.get_resident_on(machine.ref) == "OpaqueRef:NULL"
    assert machine.api.VIF.get_currently_attached(machine.vif) is False

    machine.start()
    pid = machine.pool.kill("vm", "host2", signal.SIGSTOP)  # nobody looks while it dies
    os.kill(machine.process, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    machine.pool.wait_restarted("vm", "host2", other_than=pid)
    machine.wait_for("Halted")
