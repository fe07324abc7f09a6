"""What calls do on one host of a real pool: certificates, ports, processes."""

from __future__ import annotations

import socket
import ssl
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import XenAPI

from tests.e2e import client
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.timeout(120)]
HOST = "host2"
PATIENCE = 30.0


@pytest.fixture
def api(simulator_pool: PoolUnderTest) -> Iterator[Any]:
    simulator_pool.wait_ready()
    with client.logged_in(simulator_pool) as session:
        yield session.xenapi


@pytest.fixture
def host(api: Any) -> str:
    [found] = api.host.get_by_name_label(HOST)
    return str(found)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def shown(pool: PoolUnderTest, name: str | None = None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = (pool.hosts[HOST], pool.plan.https_port)
    with socket.create_connection(address, 5) as plain, context.wrap_socket(plain, server_hostname=name) as secure:
        found = secure.getpeercert(True)
    assert found is not None
    return found


def listens(pool: PoolUnderTest) -> bool:
    """For plain HTTP."""
    try:
        socket.create_connection((pool.hosts[HOST], pool.plan.http_port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_new_certificate_is_seen_at_once_and_written_down(simulator_pool: PoolUnderTest, api: Any, host: str) -> None:
    before, internal = shown(simulator_pool), shown(simulator_pool, "pool")
    assert before != internal
    api.host.reset_server_certificate(host)
    assert shown(simulator_pool) != before
    assert shown(simulator_pool, "pool") == internal
    rows = [row for row in api.Certificate.get_all_records().values() if row["host"] == host]
    assert sorted(row["type"] for row in rows) == ["host", "host_internal"]
    assert ssl.DER_cert_to_PEM_cert(shown(simulator_pool)) == api.host.get_server_certificate(host)


def test_plain_http_stays_closed_when_the_process_is_started_again(
    simulator_pool: PoolUnderTest, api: Any, host: str
) -> None:
    api.host.set_https_only(host, True)
    try:
        assert not listens(simulator_pool)
        pid = simulator_pool.pid("api", HOST)
        api.host.restart_agent(host)
        simulator_pool.wait_restarted("api", HOST, other_than=pid)
        until(lambda: answers(api, host))
        assert not listens(simulator_pool)
    finally:
        until(lambda: answers(api, host))
        api.host.set_https_only(host, False)
    assert listens(simulator_pool)


def answers(api: Any, host: str) -> bool:
    try:
        api.host.get_servertime(host)
    except XenAPI.Failure:
        return False
    return True


def test_a_process_that_is_shut_down_comes_back_with_its_host(
    simulator_pool: PoolUnderTest, api: Any, host: str
) -> None:
    marker = simulator_pool.directory / HOST / "api" / "stay-down"
    member = xmlrpc.client.ServerProxy(simulator_pool.host_url(HOST))
    local: Any = member.session.slave_local_login_with_password("root", simulator_pool.password)
    answer: Any = member.host.shutdown_agent(local["Value"])
    assert answer == {"Status": "Success", "Value": ""}
    until(lambda: simulator_pool.pid("api", HOST) == 0 and marker.exists())
    time.sleep(1)  # the supervisor would have started it again by now
    assert simulator_pool.pid("api", HOST) == 0
    simulator_pool.command("host-up", HOST)
    until(lambda: answers(api, host))
