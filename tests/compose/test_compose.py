"""docker-compose.yml: a pool in containers, driven by the real client."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from pool.guest import build as build_guest
from tests.compose import base, engine
from tests.compose.engine import Engine
from tests.pool.conditions import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

URL = "http://127.0.0.1:8080"
UP_TIMEOUT = 600.0


@pytest.fixture(scope="module")
def docker() -> Iterator[Engine]:
    if os.geteuid() != 0:
        pytest.skip("Docker's engine needs root")
    build_guest()
    base.wheels()
    with engine.running(base.CACHE / "engine") as made:
        made.environment["XAPI_BASE"] = base.import_base(made)
        yield made


@pytest.fixture(scope="module")
def composed(docker: Engine) -> Iterator[Engine]:
    compose(docker, "build")
    try:
        compose(docker, "up", "-d")
        yield docker
    finally:
        keep_logs(docker)
        compose(docker, "down", "--volumes", "--timeout", "20", check=False)


def keep_logs(docker: Engine) -> None:
    """What the containers and the processes in them said, for whoever has to find out why a test failed."""
    if not docker.run("docker", "ps", "-q", check=False).strip():
        return
    parts = [compose(docker, "logs", "--no-color", check=False)]
    for service in ("coordinator", "member1", "member2"):
        command = ("/opt/xapi/.venv/bin/python", "-m", "pool", "--dir", "/var/lib/xapi", "logs", "-n", "40")
        parts.append(compose(docker, "exec", "-T", service, *command, check=False))
    (base.CACHE / "pool.log").write_text("\n\n".join(parts))


def compose(docker: Engine, *arguments: str, check: bool = True) -> str:
    return docker.run("docker-compose", "-p", "xapitest", *arguments, cwd=base.ROOT, timeout=UP_TIMEOUT, check=check)


@pytest.fixture(scope="module")
def session(composed: Engine) -> Any:
    """It ends with the pool: the last test takes that down."""
    eventually("the coordinator is healthy", lambda: healthy(composed, "coordinator"), timeout=120)
    password = compose(composed, "exec", "-T", "coordinator", "cat", "/var/lib/xapi/password").strip()
    made = XenAPI.Session(URL)
    made.login_with_password("root", password, "1.0", "compose test")
    return made


def healthy(docker: Engine, service: str) -> bool:
    container = compose(docker, "ps", "-q", service).strip()
    state = docker.run("docker", "inspect", "-f", "{{.State.Health.Status}}", container, check=False)
    return state.strip() == "healthy"


def live(session: Any) -> dict[str, bool]:
    """Host name to whether it is live."""
    metrics = session.xenapi.host_metrics.get_all_records()
    return {
        host["name_label"]: metrics[host["metrics"]]["live"] for host in session.xenapi.host.get_all_records().values()
    }


def test_the_pool_comes_up_with_three_live_hosts(session: Any) -> None:
    eventually("three hosts are live", lambda: list(live(session).values()) == [True] * 3, timeout=90)


def test_every_container_is_healthy(composed: Engine, session: Any) -> None:
    for service in ("rabbitmq", "coordinator", "member1", "member2"):
        eventually(f"{service} is healthy", lambda service=service: healthy(composed, service), timeout=90)  # type: ignore[misc]


def test_a_vm_starts_on_a_member(session: Any) -> None:
    template = session.xenapi.VM.get_by_name_label("Tiny guest")[0]
    vm = session.xenapi.VM.clone(template, "compose test")
    session.xenapi.VM.provision(vm)
    host = session.xenapi.host.get_by_name_label("host2")[0]
    session.xenapi.VM.start_on(vm, host, False, False)
    assert session.xenapi.VM.get_power_state(vm) == "Running"
    assert session.xenapi.host.get_software_version(host)["hypervisor"] == "qemu"
    assert session.xenapi.VM.get_resident_on(vm) == host
    session.xenapi.VM.hard_shutdown(vm)
    session.xenapi.VM.destroy(vm)


def test_a_killed_member_is_seen_to_go_and_to_come_back(composed: Engine, session: Any) -> None:
    container = compose(composed, "ps", "-q", "member2").strip()
    composed.run("docker", "kill", container)
    eventually("host3 is gone", lambda: live(session) == {"host1": True, "host2": True, "host3": False}, timeout=20)
    composed.run("docker", "start", container)
    eventually("host3 is back", lambda: all(live(session).values()), timeout=90)


def test_ports_are_published_on_loopback_only(composed: Engine) -> None:
    for line in subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if port in ("8080", "8081", "8082", "8443"):
            assert address == "127.0.0.1"


def test_taking_it_down_leaves_no_container_and_no_network(composed: Engine) -> None:
    keep_logs(composed)
    compose(composed, "down", "--volumes", "--timeout", "20")
    assert composed.run("docker", "ps", "-aq").strip() == ""
    assert composed.run("docker", "volume", "ls", "-q").strip() == ""
    assert not [link for link in Path("/sys/class/net").iterdir() if link.name.startswith("br-")]
