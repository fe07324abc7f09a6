"""What happens to VMs reaches consumers outside: webhooks of the pool's owner, and the documentation's example."""

# mypy: allow-untyped-calls
# (kombu's functions have no annotations)

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from kombu.connection import Connection

from pool import programs
from tests.e2e import client
from tests.support.pool import ROOT, STOP_TIMEOUT, PoolUnderTest, addresses

PATIENCE = 30.0

pytestmark = pytest.mark.pool


class Receiver:
    """A web server on loopback that keeps the alerts it gets: path, headers and what was posted."""

    def __init__(self) -> None:
        self._received: queue.Queue[tuple[str, dict[str, str], dict[str, Any]]] = queue.Queue()
        received = self._received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posted = self.rfile.read(int(self.headers["Content-Length"]))
                received.put((self.path, dict(self.headers), json.loads(posted)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def next(self, path: str, obj_uuid: str) -> tuple[dict[str, str], dict[str, Any]]:
        """The next alert of that object that came on that path; others pass."""
        while True:
            where, headers, alert = self._received.get(timeout=PATIENCE)
            if (where, alert["obj_uuid"]) == (path, obj_uuid):
                return headers, alert

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, worker_id: str, receiver: Receiver) -> Iterator[PoolUnderTest]:
    """A pool with two webhooks: one for everything, one for what is at least a warning."""
    directory = tmp_path_factory.mktemp("alerting")
    (directory / "options").mkdir()
    (directory / "options" / "alerts.toml").write_text(
        f'[[consumers]]\nkind = "webhook"\nname = "all"\nurl = "{receiver.url}/all"\n'
        '[consumers.headers]\nAuthorization = "Bearer secret"\n'
        f'[[consumers]]\nkind = "webhook"\nname = "warnings"\nurl = "{receiver.url}/warnings"\nmin_priority = 3\n'
    )
    pool = PoolUnderTest(directory, "--hosts", "1", "--backend", "simulator", *addresses(worker_id, 111))
    try:
        pool.up()
        yield pool
    finally:
        pool.command("down", timeout=STOP_TIMEOUT)


def test_a_webhook_gets_what_happens_to_a_vm_in_order(pool: PoolUnderTest, session: Any, receiver: Receiver) -> None:
    api = session.xenapi
    with client.temporary_vm(api, "told") as vm:
        uuid = api.VM.get_uuid(vm)
        api.VM.start(vm, False, False)
        api.VM.hard_shutdown(vm)
        headers, started = receiver.next("/all", uuid)
        assert headers["Authorization"] == "Bearer secret"
        assert headers["Idempotency-Key"] == started["id"]
        assert (started["name"], started["cls"], started["priority"]) == ("VM_STARTED", "VM", 5)
        assert (started["format"], started["pool"]) == (1, pool.plan.uuid)
        assert started["body"].startswith(f"VM 'told' (uuid: {uuid}) started on host: host1")
        assert receiver.next("/all", uuid)[1]["name"] == "VM_SHUTDOWN"
        assert api.message.get_by_uuid(started["id"]), "the stored message has the alert's id"


def test_a_guest_that_crashes_is_a_warning(session: Any, receiver: Receiver) -> None:
    api = session.xenapi
    with client.temporary_vm(api, "crashes") as vm:
        uuid = api.VM.get_uuid(vm)
        api.VM.set_actions_after_crash(vm, "destroy")
        api.VM.add_to_other_config(vm, "sim:guest-crash-after", "0.1")
        states = client.PowerStates(api, vm)
        api.VM.start(vm, False, False)
        states.wait_for("Halted")
        _, crashed = receiver.next("/warnings", uuid)
        assert (crashed["name"], crashed["priority"]) == ("VM_CRASHED", 3)


def test_the_example_consumer_prints_what_the_pool_tells(pool: PoolUnderTest, session: Any) -> None:
    url = _as_the_documentation_reads_it(pool)
    example = subprocess.Popen(
        [sys.executable, str(ROOT / "docs" / "examples" / "alert_consumer.py")],
        env={**os.environ, "AMQP_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for_consumer(url, "alert-printer alert.#")
        api = session.xenapi
        with client.temporary_vm(api, "printed") as vm:
            uuid = api.VM.get_uuid(vm)
            api.VM.start(vm, False, False)
        assert example.stdout is not None
        assert example.stdout.readline().startswith(f"[5] VM_STARTED VM {uuid}: VM 'printed'")
        assert example.stdout.readline().startswith(f"[5] VM_SHUTDOWN VM {uuid}: VM 'printed'")
    finally:
        example.kill()
        example.communicate()


def _as_the_documentation_reads_it(pool: PoolUnderTest) -> str:
    file = programs.config_file(pool.directory, "host1", "alerts")
    command = ["sed", "-n", r's/^url = "\(amqp.*\)"$/\1/p', str(file)]
    assert command[2] in (ROOT / "docs" / "alerts.md").read_text()
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _wait_for_consumer(url: str, name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    with Connection(url) as connection:
        while True:
            try:
                with connection.channel() as channel:
                    if channel.queue_declare(name, passive=True).consumer_count:
                        return
            except connection.channel_errors:  # not declared yet
                assert time.monotonic() < deadline, f"nobody reads {name}"
            time.sleep(0.05)


def test_options_that_cannot_be_used_are_refused_before_anything_starts(new_pool: PoolUnderTest) -> None:
    (new_pool.directory / "options").mkdir(parents=True)
    (new_pool.directory / "options" / "alerts.toml").write_text("[[consumers]\n")
    done = new_pool.command("up", *new_pool.options)
    assert done.returncode == 1
    assert f"cannot use {new_pool.directory}/options/alerts.toml" in done.stderr
    (new_pool.directory / "options" / "alerts.toml").rename(new_pool.directory / "options" / "alert.toml")
    assert "alert.toml is of no service" in new_pool.command("up", *new_pool.options).stderr
    assert not (new_pool.directory / "rabbitmq").exists()
