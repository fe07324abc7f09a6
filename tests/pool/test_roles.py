"""Which host is the coordinator, by the files of all hosts or of some."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool import folder, plan, roles
from pool.plan import Plan, Wanted
from pool.roles import Said
from shared import host_role
from shared.host_role import BROKEN, COORDINATOR, member_of


@pytest.fixture
def made(tmp_path: Path) -> Plan:
    return plan.make(tmp_path, Wanted(hosts=3, simulate=2), plan.defaults(root=True, qemu=False))


def names(made: Plan, *said: tuple[str, Said]) -> str:
    return roles.elected(made, dict(said)).name


def test_a_new_pool_begins_with_the_roles_of_the_plan(tmp_path: Path, made: Plan) -> None:
    roles.write_missing(tmp_path, made)
    found = {group: str(said.role) for group, said in roles.read(tmp_path, made).items()}
    member = "slave:127.0.0.11"
    assert found == {"host1": "master", "host2": member, "host3": member, "simulated": member}
    assert roles.coordinator(tmp_path, made).name == "host1"


def test_roles_that_hosts_have_written_stay_and_what_is_missing_follows_them(tmp_path: Path, made: Plan) -> None:
    roles.write_missing(tmp_path, made)
    host_role.write(roles.role_file(tmp_path, "host2"), COORDINATOR)
    host_role.write(roles.role_file(tmp_path, "host1"), member_of("127.0.0.12"))
    roles.role_file(tmp_path, "host3").unlink()
    roles.write_missing(tmp_path, made)
    assert host_role.read(roles.role_file(tmp_path, "host2")) == COORDINATOR
    assert host_role.read(roles.role_file(tmp_path, "host3")) == member_of("127.0.0.12")
    assert roles.coordinator(tmp_path, made).name == "host2"


def test_of_two_coordinators_it_is_the_one_that_the_others_name(made: Plan) -> None:
    old, new = ("host1", Said(COORDINATOR, 20.0)), ("host2", Said(COORDINATOR, 10.0))
    assert names(made, old, new, ("host3", Said(member_of("127.0.0.12")))) == "host2"


def test_of_two_coordinators_that_nobody_names_it_is_the_later_one(made: Plan) -> None:
    assert names(made, ("host1", Said(COORDINATOR, 10.0)), ("host3", Said(COORDINATOR, 20.0))) == "host3"


def test_in_a_container_the_members_file_names_the_coordinator(made: Plan) -> None:
    assert names(made, ("host2", Said(member_of("127.0.0.13")))) == "host3"
    assert names(made, ("host2", Said(BROKEN))) == "host1"


def test_clients_are_told_of_the_coordinator_that_there_is_now(tmp_path: Path, made: Plan) -> None:
    roles.write_missing(tmp_path, made)
    host_role.write(roles.role_file(tmp_path, "host1"), member_of("127.0.0.13"))
    host_role.write(roles.role_file(tmp_path, "host3"), COORDINATOR)
    env = folder.env(tmp_path, made)
    assert (env["XAPI_URL"], env["XAPI_COORDINATOR"]) == ("http://127.0.0.13", "127.0.0.13")
    assert env["XE_SOCKET"] == str(plan.socket_path(tmp_path, "host3"))
