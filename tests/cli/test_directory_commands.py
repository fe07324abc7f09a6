"""Commands for external authentication."""

from __future__ import annotations

import pytest

from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import ThinClient


@pytest.fixture
def pool(api: FakeXenApi) -> str:
    return next(iter(api.rows["pool"]))


async def test_a_pool_joins_and_leaves_a_directory(api: FakeXenApi, xe: ThinClient, pool: str) -> None:
    for message in ("enable_external_auth", "disable_external_auth", "external_auth_set_ldaps"):
        api.on[f"pool.{message}"] = lambda *params: ""
    joined = ("auth-type=LDAP", "service-name=example.test", "config:user=cn=reader,dc=test", "config:pass=x")
    assert (await xe("pool-enable-external-auth", *joined)).status == 0
    config = {"user": "cn=reader,dc=test", "pass": "x"}
    assert api.calls("pool.enable_external_auth") == [(pool, config, "example.test", "LDAP")]
    assert (await xe("pool-external-auth-set-ldaps", "ldaps=yes", f"uuid={api.uuid(pool)}")).status == 0
    assert api.calls("pool.external_auth_set_ldaps") == [(pool, True, False)]
    assert (await xe("pool-disable-external-auth", "config:user=me")).status == 0
    assert api.calls("pool.disable_external_auth") == [(pool, {"user": "me"})]
    assert (await xe("pool-enable-external-auth", "auth-type=LDAP")).stderr.startswith("Required parameter not found")


async def test_one_host_is_made_to_leave_by_the_word_alone(api: FakeXenApi, xe: ThinClient) -> None:
    (host,) = api.rows["host"]
    api.on["host.disable_external_auth"] = lambda *params: ""
    for words, forced in (((), False), (("force=false",), True), (("--force",), True)):
        assert (await xe("host-disable-external-auth", f"host-uuid={api.uuid(host)}", *words)).status == 0
        assert api.calls("host.disable_external_auth")[-1] == (host, {}, forced)


async def test_a_subject_is_added_by_its_name(api: FakeXenApi, xe: ThinClient) -> None:
    api.on["auth.get_subject_identifier"] = lambda name: f"id of {name}"
    api.on["auth.get_subject_information_from_identifier"] = lambda identifier: {"subject-name": "alice"}
    api.on["subject.create"] = lambda fields: api.add("subject", **fields)
    outcome = await xe("subject-add", "subject-name=alice")
    ((ref, row),) = api.rows["subject"].items()
    assert outcome.stdout == f"{api.uuid(ref)}\n"
    assert row["subject_identifier"] == "id of alice"
    assert row["other_config"] == {"subject-name": "alice"}
    assert (await xe("subject-remove", f"subject-uuid={api.uuid(ref)}")).status == 0
    assert api.rows["subject"] == {}


async def test_roles_are_given_and_taken_by_name_or_uuid(api: FakeXenApi, xe: ThinClient) -> None:
    subject = api.add("subject", subject_identifier="x")
    role = api.add("role", name_label="vm-operator", subroles=["OpaqueRef:x"])
    for message in ("add_to_roles", "remove_from_roles"):
        api.on[f"subject.{message}"] = lambda *params: ""
    about = f"uuid={api.uuid(subject)}"
    assert (await xe("subject-role-add", about, "role-name=vm-operator")).status == 0
    assert (await xe("subject-role-remove", about, f"role-uuid={api.uuid(role)}")).status == 0
    assert api.calls("subject.add_to_roles") == api.calls("subject.remove_from_roles") == [(subject, role)]
    await xe("subject-role-add", about, "role-name=emperor")
    assert api.calls("subject.add_to_roles")[-1] == (subject, "OpaqueRef:NULL")
    missing = "Error: Required parameter not found: role-uuid or role-name\n"
    assert (await xe("subject-role-add", about)).stderr == missing


async def test_all_sessions_of_the_directory_are_ended(api: FakeXenApi, xe: ThinClient) -> None:
    api.on["session.get_all_subject_identifiers"] = lambda: ["a", "b"]
    api.on["session.logout_subject_identifier"] = lambda identifier: ""
    assert (await xe("session-subject-identifier-list")).stdout == "a\nb\n"
    assert (await xe("session-subject-identifier-logout-all")).status == 0
    assert api.calls("session.logout_subject_identifier") == [("a",), ("b",)]
