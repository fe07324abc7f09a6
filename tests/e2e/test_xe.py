"""Our own `xe`, as a user runs it: over TLS with a password, and as root over a host's Unix socket without one."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pool import plan
from tests.e2e import client
from tests.support.pool import PoolUnderTest

XE = Path(sys.executable).with_name("xe")
TIMEOUT = 60.0

pytestmark = pytest.mark.pool

Result = subprocess.CompletedProcess[str]
Run = Callable[..., str]


def environment(pool: PoolUnderTest, host: str = "host1") -> dict[str, str]:
    """Nothing of the user's own; the socket of that host."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "XE_SOCKET": str(plan.socket_path(pool.directory, host)),
    }


def xe(pool: PoolUnderTest, *words: str, host: str = "host1") -> Result:
    return subprocess.run(
        [XE, *words],
        env=environment(pool, host),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def over_tls(pool: PoolUnderTest, *words: str, host: str = "host1", password: str | None = None) -> Result:
    given = pool.password if password is None else password
    return xe(pool, "-s", pool.hosts[host], "-u", "root", "-pw", given, *words)


@pytest.fixture(scope="module")
def pool(simulator_pool: PoolUnderTest) -> PoolUnderTest:
    return simulator_pool


@pytest.fixture(params=["TLS", "Unix socket"])
def run(pool: PoolUnderTest, request: pytest.FixtureRequest) -> Run:
    """Runs a command that has to succeed without a word on standard error; its output."""
    way = over_tls if request.param == "TLS" else xe

    def run(*words: str) -> str:
        done = way(pool, *words)
        assert (done.returncode, done.stderr) == (0, ""), f"xe {words}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def vm(pool: PoolUnderTest, session: Any) -> Iterator[str]:
    """The uuid of a halted VM, `web01`."""
    with client.temporary_vm(session.xenapi, "web01") as ref:
        yield session.xenapi.VM.get_uuid(ref)


# ---- lists


def test_hosts_are_listed_in_the_original_layout(pool: PoolUnderTest, run: Run) -> None:
    records = [
        f"uuid ( RO)                : {host.uuid}\n"
        f"          name-label ( RW): {host.name}\n"
        "    name-description ( RW): Default install\n\n\n"
        for host in pool.plan.hosts
    ]
    listed = run("host-list")
    assert sorted(re.split(r"(?<=\n\n\n)", listed)[:-1]) == sorted(records)


def test_a_vm_is_listed_in_the_original_layout(run: Run, vm: str) -> None:
    assert run("vm-list", f"uuid={vm}") == (
        f"uuid ( RO)           : {vm}\n     name-label ( RW): web01\n    power-state ( RO): halted\n\n\n"
    )


def test_chosen_fields_come_in_the_order_of_the_record(run: Run, vm: str) -> None:
    assert run("vm-list", f"uuid={vm}", "params=power-state,name-label") == (
        "name-label ( RW)     : web01\n    power-state ( RO): halted\n\n\n"
    )


def test_the_sr_is_listed_in_the_original_layout(pool: PoolUnderTest, run: Run) -> None:
    assert pool.plan.sr is not None
    assert run("sr-list") == (
        f"uuid ( RO)                : {pool.plan.sr.uuid}\n"
        "          name-label ( RW): Local files\n"
        "    name-description ( RW): Default storage of the pool\n"
        "                host ( RO): <shared>\n"
        "                type ( RO): file\n"
        "        content-type ( RO): user\n\n\n"
    )


def test_templates_are_listed_apart_from_vms(run: Run) -> None:
    assert "name-label ( RW): Tiny guest\n" in run("template-list")
    assert "Tiny guest" not in run("vm-list")


def test_minimal_output_is_one_line_of_values(pool: PoolUnderTest, run: Run) -> None:
    listed = run("host-list", "params=name-label", "--minimal")
    assert sorted(listed.removesuffix("\n").split(",")) == sorted(pool.hosts)
    assert run("vm-list", "name-label=nothing", "--minimal") == "\n"


def test_a_list_without_matches_prints_nothing(run: Run) -> None:
    assert run("vm-list", "name-label=no such VM") == ""


# ---- the life of a VM


def test_a_vm_is_installed_started_stopped_and_uninstalled(pool: PoolUnderTest, run: Run) -> None:
    vm = run("vm-install", "template=Tiny guest", "new-name-label=by xe").strip()
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", vm)
    assert run("vm-param-get", f"uuid={vm}", "param-name=power-state") == "halted\n"
    assert run("vm-disk-add", f"uuid={vm}", "disk-size=64MiB", "device=0") == ""
    vdi = run("vbd-list", f"vm-uuid={vm}", "params=vdi-uuid", "--minimal").strip()
    assert run("vdi-param-get", f"uuid={vdi}", "param-name=virtual-size") == f"{64 << 20}\n"

    assert run("vm-start", "vm=by xe") == ""
    assert run("vm-param-get", f"uuid={vm}", "param-name=power-state") == "running\n"
    assert run("vm-shutdown", f"uuid={vm}") == ""
    assert run("vm-param-get", f"uuid={vm}", "param-name=power-state") == "halted\n"

    assert run("vm-start", f"uuid={vm}", "on=host2") == ""
    host = run("host-list", "name-label=host2", "--minimal")
    assert run("vm-param-get", f"uuid={vm}", "param-name=resident-on") == host

    assert run("vm-uninstall", f"uuid={vm}", "--force") == (
        "The following items are about to be destroyed\n"
        f"VM : {vm} (by xe)\n"
        f"VDI: {vdi} (Created by xe) \n"
        "All objects destroyed\n"
    )
    assert run("vm-list", f"uuid={vm}", "--minimal") == "\n"
    assert run("vdi-list", f"uuid={vdi}", "--minimal") == "\n"
    assert run("task-list", "--minimal") == "\n"


def test_an_uninstall_that_is_not_confirmed_destroys_nothing(pool: PoolUnderTest, vm: str) -> None:
    done = subprocess.run(
        [XE, "vm-uninstall", f"uuid={vm}"],
        env=environment(pool),
        input="no\n",
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Type 'yes' to continue\nAborted (you typed: 'no')\n")
    assert xe(pool, "vm-list", f"uuid={vm}", "--minimal").stdout == f"{vm}\n"


def test_progress_is_drawn_on_standard_error(pool: PoolUnderTest, vm: str) -> None:
    done = over_tls(pool, "vm-start", f"uuid={vm}", "--progress")
    assert (done.returncode, done.stdout) == (0, "")
    last = done.stderr.replace("\r", "\n")  # text mode reads one as the other
    assert re.search(r"\n 100% [|/\\-] #{70}\n\n\n$", last)


def test_a_parameter_that_is_set_is_read_by_other_clients(session: Any, run: Run, vm: str) -> None:
    assert run("vm-param-set", f"uuid={vm}", "name-description=by xe", "other-config:colour=red") == ""
    record = session.xenapi.VM.get_record(session.xenapi.VM.get_by_uuid(vm))
    assert record["name_description"] == "by xe"
    assert record["other_config"]["colour"] == "red"
    assert run("vm-param-get", f"uuid={vm}", "param-name=other-config", "param-key=colour") == "red\n"


# ---- hosts and sockets


def test_a_members_unix_socket_reaches_the_coordinator(pool: PoolUnderTest, vm: str) -> None:
    for host in ("host2", "host3"):
        done = xe(pool, "vm-list", f"uuid={vm}", "--minimal", host=host)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{vm}\n", "")
    assert xe(pool, "vm-start", f"uuid={vm}", host="host3").returncode == 0
    assert xe(pool, "vm-param-get", f"uuid={vm}", "param-name=power-state").stdout == "running\n"


def test_a_member_over_tls_names_the_coordinator(pool: PoolUnderTest) -> None:
    done = over_tls(pool, "host-list", host="host2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"Master IP address: {pool.hosts['host1']}"


# ---- errors


def test_a_wrong_password_is_refused(pool: PoolUnderTest) -> None:
    done = over_tls(pool, "host-list", password="wrong")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Authentication failed\nFor usage run: 'xe help'\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nonsense"], "Unknown command: nonsense\nFor usage run: 'xe help'\n"),
        (["vm-param-get"], "Required parameter not found: uuid\nFor usage run: 'xe help'\n"),
        (["host-list", "-x"], "Syntax error: \nFor usage run: 'xe help'\n"),
        (["vm-start", "vm=no such VM"], "Error: No matching VMs found\n"),
    ],
)
def test_what_cannot_be_done_is_told_as_the_original_tells_it(pool: PoolUnderTest, words: list[str], text: str) -> None:
    done = over_tls(pool, *words)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", text)


def test_an_error_of_the_api_names_its_parameters(pool: PoolUnderTest, vm: str) -> None:
    assert over_tls(pool, "vm-start", f"uuid={vm}").returncode == 0
    done = over_tls(pool, "vm-start", f"uuid={vm}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == [f"vm: {vm} (web01)", "expected: halted", "actual: running"]


def test_where_no_pool_is_the_client_says_so(pool: PoolUnderTest) -> None:
    done = xe(pool, "-s", pool.hosts["host1"], "-p", "9", "-pw", "x", "host-list")
    assert done.returncode == 1
    assert "refused" in done.stderr


# ---- the console


def test_the_console_of_a_vm_appears_in_the_terminal(pool: PoolUnderTest, session: Any, vm: str) -> None:
    session.xenapi.VM.start(session.xenapi.VM.get_by_uuid(vm), False, False)
    terminal, inside = pty.openpty()
    try:
        process = subprocess.Popen(
            [XE, "console", f"uuid={vm}"], env=environment(pool), stdin=inside, stdout=inside, stderr=inside
        )
        try:
            assert "Leave with Ctrl-]" in _read_until(terminal, b"login: ")
            os.write(terminal, b"typed")
            _read_until(terminal, b"typed")
            os.write(terminal, b"\x1d")
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(terminal)
        os.close(inside)


def _read_until(descriptor: int, wanted: bytes) -> str:
    deadline = time.monotonic() + TIMEOUT
    text = b""
    while wanted not in text:
        ready, _, _ = select.select([descriptor], [], [], deadline - time.monotonic())
        assert ready, f"only {text!r} was shown"
        text += os.read(descriptor, 4096)
    return text.decode()
