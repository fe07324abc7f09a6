"""Services without their neighbours: each starts, waits with a clear word, works when the others come, and stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from pool import configuration, folder, plan, programs, rabbitmq, roles
from pool.configuration import Guest
from pool.plan import Wanted
from pool.programs import STAGES, Program
from tests.support.pool import ROOT, addresses

SERVICES = [service for stage in STAGES for service in stage]
STOP_LIMIT = 30.0
PATIENCE = 60.0

WAITING = {"api": "waiting for the database"}
"""What a service says that cannot work alone. The others are ready: they need nobody until somebody calls them."""

pytestmark = [pytest.mark.broker, pytest.mark.pool]


class Host:
    """The services of a pool of one simulated host, started and stopped by hand: nobody starts them again."""

    def __init__(self, directory: Path, broker_url: str, *options: str) -> None:
        wanted = Wanted(hosts=1, backend="simulator", base_address=options[1])
        self.directory = directory
        self.plan = plan.make(directory, wanted, plan.defaults(root=os.geteuid() == 0, qemu=False))
        self.password = folder.password(directory)
        configuration.write_seed(directory, self.plan, Guest())
        roles.write_missing(directory, self.plan)
        self._programs = {program.service: program for program in programs.programs(directory, self.plan)}
        configuration.write(directory, self.plan, list(self._programs.values()), broker_url)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: str) -> None:
        program = self._programs[service]
        with program.log_file(self.directory).open("wb") as output:
            self._running[service] = subprocess.Popen(
                program.argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def log(self, service: str) -> list[dict[str, Any]]:
        """Its lines; one that is just being written is left out."""
        lines = self._program(service).log_file(self.directory).read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def wait_for_line(self, service: str, text: str) -> dict[str, Any]:
        """The first line of its log that contains the text. It must not have ended."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for line in self.log(service):
                if text in line["message"]:
                    return line
            assert self._running[service].poll() is None, f"{service} has ended: {self.log(service)}"
            assert time.monotonic() < deadline, f"{service} never said {text!r}: {self.log(service)}"
            time.sleep(0.02)

    def wait_until_ready(self, service: str) -> None:
        self.wait_for_line(service, "ready")

    def terminate(self, *services: str) -> None:
        """SIGTERM to all of them at once: each ends in time, with status 0."""
        deadline = time.monotonic() + STOP_LIMIT
        for service in services:
            self._running[service].send_signal(signal.SIGTERM)
        for service in services:
            status = self._running[service].wait(max(0.0, deadline - time.monotonic()))
            assert status == 0, f"{service} ended with status {status}: {self.log(service)[-3:]}"
            del self._running[service]

    def kill(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def _program(self, service: str) -> Program:
        return self._programs[service]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq.Node]:
    """A broker of this module's own, so that no neighbour of another test is near."""
    node = rabbitmq.start(tmp_path_factory.mktemp("alone") / "broker")
    try:
        yield node
    finally:
        current = rabbitmq.read(node.directory)
        if current is not None:
            rabbitmq.stop(current)


@pytest.fixture
def host(tmp_path: Path, broker: rabbitmq.Node, worker_id: str) -> Iterator[Host]:
    made = Host(tmp_path, broker.url, *addresses(worker_id, 121))
    try:
        yield made
    finally:
        made.kill()


def _answers(host: Host) -> None:
    """The pool does what a client asks: it runs a VM."""
    session = XenAPI.Session(host.plan.url(host.plan.first_coordinator))
    session.login_with_password("root", host.password, "1.0", "tests")
    api = session.xenapi
    (record,) = api.host.get_all_records().values()
    deadline = time.monotonic() + PATIENCE
    while not (record["enabled"] and api.host_metrics.get_live(record["metrics"])):
        assert time.monotonic() < deadline, f"the host is not ready: {record}"
        time.sleep(0.05)
        (record,) = api.host.get_all_records().values()
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny guest")[0], "first")
    api.VM.provision(vm)
    api.VM.start(vm, False, False)
    assert api.VM.get_power_state(vm) == "Running"
    api.VM.hard_shutdown(vm)
    api.VM.destroy(vm)
    session.xenapi.session.logout()


def _complaints(host: Host) -> list[str]:
    return [f"{service}: {line}" for service in SERVICES for line in host.log(service) if "traceback" in line]


def test_each_service_alone_is_ready_or_says_what_it_waits_for(host: Host) -> None:
    for service in SERVICES:
        host.start(service)
        host.wait_for_line(service, WAITING.get(service, "ready"))
        host.terminate(service)
    assert _complaints(host) == []
    assert [line["message"] for line in host.log("api")].count("ready") == 0


def test_services_that_come_in_the_wrong_order_make_a_pool_all_the_same(host: Host) -> None:
    """Clients first, the database last."""
    for service in reversed(SERVICES):
        host.start(service)
        if service != "db":
            host.wait_for_line(service, WAITING.get(service, "ready"))
    for service in SERVICES:
        host.wait_until_ready(service)
    _answers(host)
    assert _complaints(host) == []
    host.terminate(*SERVICES)


def test_without_a_broker_services_wait_and_work_when_it_appears(host: Host, broker: rabbitmq.Node) -> None:
    rabbitmq.stop(broker)
    for service in SERVICES:
        host.start(service)
    for service in SERVICES:
        line = host.wait_for_line(service, "no connection to the broker")
        assert line["level"] == "warning"
        assert broker.password not in line["message"]
    host.terminate("metrics", "api")
    host.start("metrics")
    host.start("api")
    rabbitmq.start(broker.directory)
    for service in SERVICES:
        host.wait_until_ready(service)
    _answers(host)
    assert _complaints(host) == []
    host.terminate(*SERVICES)
