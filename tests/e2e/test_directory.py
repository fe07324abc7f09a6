"""A pool of three hosts joins a real LDAP server over TLS, and its users log in with the real clients."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import XenAPI

from tests.api.directory import people
from tests.api.directory.authority import Authority
from tests.e2e import client
from tests.e2e.test_xe import over_tls, xe
from tests.support import slapd
from tests.support.pool import PoolUnderTest
from tests.support.slapd import Slapd

pytestmark = pytest.mark.pool


@pytest.fixture(scope="module")
def pool(simulator_pool: PoolUnderTest) -> PoolUnderTest:
    return simulator_pool


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    slapd.required()
    authority = Authority("ours")
    server = Slapd(tmp_path_factory.mktemp("slapd"), people.openldap(), ["nis"], ["overlay ppolicy"])
    (server.folder / "ca.pem").write_text(authority.certificate)
    server.certificate(*authority.issue("127.0.0.1"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def joined(pool: PoolUnderTest, server: Slapd) -> Iterator[None]:
    """As an operator does it: with xe, over LDAPS. The groups operators and admins may log in."""
    ok(
        xe(
            pool,
            "pool-enable-external-auth",
            "auth-type=LDAP",
            "service-name=example.test",
            f"config:server={server.tls_url}",
            f"config:ca_file={server.folder / 'ca.pem'}",
            f"config:user={people.READER}",
            f"config:pass={people.READER_PASSWORD}",
        )
    )
    try:
        for name, role in (("operators", "vm-operator"), ("admins", "pool-admin")):
            subject = ok(xe(pool, "subject-add", f"subject-name={name}")).strip()
            if role != "pool-admin":  # which is what a subject begins as
                ok(xe(pool, "subject-role-add", f"uuid={subject}", f"role-name={role}"))
                ok(xe(pool, "subject-role-remove", f"uuid={subject}", "role-name=pool-admin"))
        yield
    finally:
        for subject in ok(xe(pool, "subject-list", "--minimal")).strip().split(","):
            if subject:
                ok(xe(pool, "subject-remove", f"subject-uuid={subject}"))
        ok(xe(pool, "pool-disable-external-auth"))


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def logged_in(pool: PoolUnderTest, name: str) -> Any:
    session = XenAPI.Session(pool.url, ignore_ssl=True)
    session.login_with_password(name, people.password(name), "1.0", "tests")
    return session


def error_of(call: Any, *arguments: Any) -> list[str]:
    with pytest.raises(XenAPI.Failure) as caught:
        call(*arguments)
    details: list[str] = caught.value.details
    return details


@pytest.mark.usefixtures("joined")
def test_an_operator_in_a_group_of_a_group_starts_vms_and_destroys_no_storage(
    pool: PoolUnderTest, session: Any
) -> None:
    with client.temporary_vm(session.xenapi, "web01") as vm:
        bob = logged_in(pool, "bob")
        bob.xenapi.VM.start(vm, False, False)
        assert bob.xenapi.VM.get_power_state(vm) == "Running"
        bob.xenapi.VM.hard_shutdown(vm)
        for storage in bob.xenapi.SR.get_all():
            assert error_of(bob.xenapi.SR.destroy, storage)[:2] == ["RBAC_PERMISSION_DENIED", "sr.destroy"]
        record = bob.xenapi.session.get_record(bob._session)
        assert (record["auth_user_name"], record["is_local_superuser"]) == ("bob", False)
        bob.xenapi.session.logout()


@pytest.mark.usefixtures("joined")
def test_an_administrator_uses_xe_with_the_name_of_the_directory(pool: PoolUnderTest) -> None:
    words = ("-s", pool.hosts["host1"], "-u", "carol", "-pw", people.password("carol"))
    assert ok(xe(pool, *words, "session-subject-identifier-list"))
    assert "example.test" in ok(xe(pool, *words, "host-param-get", f"uuid={pool.plan.hosts[1].uuid}", *_SERVICE))
    denied = over_tls(pool, "host-param-get", f"uuid={pool.plan.hosts[1].uuid}", *_CONFIGURATION)
    assert people.READER_PASSWORD not in denied.stdout
    assert people.READER in denied.stdout


_SERVICE = ("param-name=external-auth-service-name",)
_CONFIGURATION = ("param-name=external-auth-configuration",)


@pytest.mark.usefixtures("joined")
def test_a_closed_account_is_thrown_out_and_does_not_come_back(pool: PoolUnderTest, server: Slapd) -> None:
    """Sessions are looked at every five minutes, and at once when a subject goes."""
    alice, bob = logged_in(pool, "alice"), logged_in(pool, "bob")
    token = alice.xenapi.event_from(["secret"], "", 0.0)["token"]
    server.set(people.user("alice"), "pwdAccountLockedTime", "000001010000Z")
    try:
        other = ok(xe(pool, "subject-add", "subject-name=dave")).strip()
        ok(xe(pool, "subject-remove", f"subject-uuid={other}"))
        began = time.monotonic()
        # Her session ends, which ends her wait; the client logs in again by itself, and may not.
        refused = error_of(alice.xenapi.event_from, ["secret"], token, 60.0)
        assert refused == ["SESSION_AUTHORIZATION_FAILED", "alice", "the account is locked"]
        assert 5 <= time.monotonic() - began < 60
        bob.xenapi.VM.get_all()
    finally:
        server.change(f"dn: {people.user('alice')}\nchangetype: modify\ndelete: pwdAccountLockedTime\n")
    bob.xenapi.session.logout()


@pytest.mark.usefixtures("joined")
def test_while_the_directory_is_away_root_still_logs_in(pool: PoolUnderTest, server: Slapd) -> None:
    server.stop()
    try:
        refused = error_of(lambda: logged_in(pool, "bob"))
        assert refused[:2] == ["INTERNAL_ERROR", "session.login_with_password"]
        with client.logged_in(pool) as root:
            root.xenapi.VM.get_all()
    finally:
        server.start()
    logged_in(pool, "bob").xenapi.session.logout()
