"""Another host becomes coordinator: in good order there and back, and after the old one was lost.

Roles, start and end are those of real processes; VMs run on in the meantime. The broker is none of the hosts' own.
"""

from __future__ import annotations

import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import XenAPI

from pool import programs, roles
from shared import host_role
from shared.host_role import COORDINATOR, member_of
from tests.e2e import client
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.timeout(300)]

PATIENCE = 60.0
"""Seconds that a coordinator's processes get to start, on a machine that has much else to do."""

AWAY = (OSError, xmlrpc.client.Error, XenAPI.Failure)
"""What a client meets while nobody is coordinator."""

Found = TypeVar("Found")


def eventually(what: str, look: Callable[[], Found | None]) -> Found:
    """Looks again, whatever it meets, until there is something."""
    deadline = time.monotonic() + PATIENCE
    met: object = "nothing"
    while time.monotonic() < deadline:
        try:
            if (found := look()) is not None:
                return found
        except AWAY as error:
            met = error
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE:g} s: {what}; met: {met}")


def login(pool: PoolUnderTest, host: str) -> Any:
    session = XenAPI.Session(pool.host_url(host))
    session.login_with_password("root", pool.password, "1.0", "tests")
    return session


def coordinator(pool: PoolUnderTest, host: str) -> Any:
    """A session on that host, once it lets clients in."""
    return eventually(f"{host} is coordinator", lambda: login(pool, host))


def role(pool: PoolUnderTest, host: str) -> host_role.HostRole:
    return host_role.read(roles.role_file(pool.directory, host))


def sends_elsewhere(pool: PoolUnderTest, host: str) -> str:
    """Where the host sends its clients, once it does."""

    def refusal() -> str | None:
        try:
            login(pool, host).xenapi.session.logout()
        except XenAPI.Failure as failure:
            return str(failure.details[1]) if failure.details[0] == "HOST_IS_SLAVE" else None
        return None

    return eventually(f"{host} is a member", refusal)


def named(api: Any, host: str) -> str:
    [found] = api.host.get_by_name_label(host)
    return str(found)


def designate(pool: PoolUnderTest, api: Any, host: str) -> Any:
    """Hands over to that host; a session on it."""
    api.pool.designate_new_master(named(api, host))
    return coordinator(pool, host)


@pytest.fixture(scope="module")
def pool(simulator_pool: PoolUnderTest) -> Iterator[PoolUnderTest]:
    """Left as it was found."""
    simulator_pool.wait_ready()
    yield simulator_pool
    for host in simulator_pool.hosts:
        if programs.down_file(simulator_pool.directory, host).exists():
            simulator_pool.command("host-up", host)
    simulator_pool.wait_ready()
    now = roles.coordinator(simulator_pool.directory, simulator_pool.plan).name
    if now != "host1":
        designate(simulator_pool, login(simulator_pool, now).xenapi, "host1").xenapi.session.logout()
    simulator_pool.wait_ready()


@pytest.fixture
def vm(pool: PoolUnderTest) -> Iterator[str]:
    """Runs on host3, which stays a member."""
    with client.logged_in(pool) as session:
        made = client.provisioned(session.xenapi, "goes on")
        session.xenapi.VM.start_on(made, named(session.xenapi, "host3"), False, False)
    yield made
    with client.logged_in(pool) as session:
        client.remove(session.xenapi, made)


def assert_goes_on(api: Any, vm: str) -> None:
    assert api.VM.get_power_state(vm) == "Running"
    assert api.VM.get_resident_on(vm) == named(api, "host3")


def test_the_coordinator_hands_over_and_gets_it_back(pool: PoolUnderTest, vm: str) -> None:
    first = login(pool, "host1")
    domain, pids = first.xenapi.VM.get_domid(vm), [pool.pid("vm", host) for host in pool.hosts]
    first.xenapi.VM.set_name_description(vm, "written before")

    second = designate(pool, first.xenapi, "host2")
    api = second.xenapi
    assert_goes_on(api, vm)
    assert api.VM.get_name_description(vm) == "written before"
    api.VM.add_to_other_config(vm, "by", "host2")
    assert sends_elsewhere(pool, "host1") == pool.hosts["host2"]
    assert (role(pool, "host1"), role(pool, "host2")) == (member_of(pool.hosts["host2"]), COORDINATOR)
    assert sends_elsewhere(pool, "host3") == pool.hosts["host2"]
    eventually("clients find it in `env`", lambda: pool.url == pool.host_url("host2") or None)
    again = XenAPI.Session(pool.host_url("host2"))
    again._session = first._session
    assert again.xenapi.session.get_uuid(first._session), "who was logged in still is"

    [host2] = [row["uuid"] for row in api.host.get_all_records().values() if row["name_label"] == "host2"]
    alert = {"name": "POOL_MASTER_TRANSITION", "cls": "Host", "obj_uuid": host2, "priority": "4"}
    found = eventually("people are told", lambda: _messages(api, alert))
    assert len(found) == 1

    third = designate(pool, api, "host1")
    assert_goes_on(third.xenapi, vm)
    assert third.xenapi.VM.get_other_config(vm)["by"] == "host2"
    assert third.xenapi.VM.get_domid(vm) == domain
    assert [pool.pid("vm", host) for host in pool.hosts] == pids
    assert sends_elsewhere(pool, "host2") == pool.hosts["host1"]
    assert [row["current_operations"] for row in third.xenapi.pool.get_all_records().values()] == [{}]
    third.xenapi.session.logout()


def _messages(api: Any, wanted: dict[str, str]) -> list[Any] | None:
    rows = [row for row in api.message.get_all_records().values() if wanted.items() <= row.items()]
    return rows or None


def test_a_member_takes_over_from_a_lost_coordinator_which_comes_back_as_a_member(pool: PoolUnderTest, vm: str) -> None:
    with client.logged_in(pool) as session:
        session.xenapi.VM.set_name_description(vm, "written before")
    done = pool.command("host-down", "host1")
    assert done.returncode == 0, done.stderr

    host2 = xmlrpc.client.ServerProxy(pool.host_url("host2"))
    local: Any = host2.session.slave_local_login_with_password("root", pool.password)
    answer: Any = host2.pool.emergency_transition_to_master(local["Value"])
    assert answer["Status"] == "Success", answer
    new = coordinator(pool, "host2")
    api = new.xenapi
    assert_goes_on(api, vm)
    assert api.VM.get_name_description(vm) == "written before"
    api.VM.set_name_description(vm, "written after")
    assert role(pool, "host1") == COORDINATOR, "it cannot know yet"

    done = pool.command("host-up", "host1")
    assert done.returncode == 0, done.stderr
    assert sends_elsewhere(pool, "host1") == pool.hosts["host2"]
    assert role(pool, "host1") == member_of(pool.hosts["host2"])
    pool.wait_ready()

    old = designate(pool, api, "host1")
    assert old.xenapi.VM.get_name_description(vm) == "written after", "its database has followed"
    assert_goes_on(old.xenapi, vm)
    old.xenapi.session.logout()
