"""Logins of a pool's users through a real directory: who gets in, with which rights, and what the others are told."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.api.directory.logins import remaining
from shared.contracts.db import Update
from shared.errors import ApiError
from tests.api.directory import people
from tests.api.directory.login import add_subject, disable, enable, login, refusal
from tests.api.harness import Client, Pool, error_of
from tests.support.slapd import Slapd


@pytest.fixture
async def root(root: Client, openldap: Slapd) -> Client:
    """The pool is in the directory."""
    await enable(root, openldap)
    return root


@pytest.fixture
async def cached(pool: Pool, root: Client) -> None:
    [ref] = pool.store.rows("pool")
    await root.call("pool.set_ext_auth_cache_enabled", ref, True)


async def test_a_user_gets_the_roles_of_all_groups_that_it_is_in(pool: Pool, root: Client) -> None:
    operators = await add_subject(root, "operators", "vm-operator")
    bob = await login(pool, "bob")  # through night-shift
    row = pool.row("session", bob.session)
    assert row["auth_user_name"] == "bob"
    assert row["auth_user_sid"] == await root.call("auth.get_subject_identifier", "bob")
    assert (row["subject"], row["is_local_superuser"], row["pool"]) == (operators, False, False)
    wanted = await root.call("subject.get_permissions_name_label", operators)
    assert set(row["rbac_permissions"]) == set(wanted)


async def test_an_operator_starts_vms_and_destroys_no_storage(pool: Pool, root: Client) -> None:
    await add_subject(root, "operators", "vm-operator")
    vm = await pool.vm(root)
    alice = await login(pool, "alice")
    await alice.call("VM.start", vm, False, False)
    assert pool.row("VM", vm)["power_state"] == "Running"
    denied = await alice.refusal("SR.destroy", pool.ref("SR", "storage"))
    assert denied[:2] == ["RBAC_PERMISSION_DENIED", "sr.destroy"]
    assert (await alice.refusal("subject.create", {}))[0] == "RBAC_PERMISSION_DENIED"


async def test_roles_add_up(pool: Pool, root: Client) -> None:
    await add_subject(root, "operators", "read-only")
    alice = await login(pool, "alice")
    assert (await alice.refusal("pool.detect_nonhomogeneous_external_auth", "x"))[0] == "RBAC_PERMISSION_DENIED"
    await add_subject(root, "alice", "pool-operator")
    assert (await alice.refusal("pool.detect_nonhomogeneous_external_auth", "x"))[0] == "RBAC_PERMISSION_DENIED"
    again = await login(pool, "alice")
    assert (await again.refusal("pool.detect_nonhomogeneous_external_auth", "x"))[0] == "HANDLE_INVALID"


# ---- who does not get in


async def test_what_is_wrong_decides_the_error(pool: Pool, root: Client) -> None:
    await add_subject(root, "operators")
    assert (await refusal(pool, "alice", "wrong"))[:2] == ["SESSION_AUTHENTICATION_FAILED", "alice"]
    assert (await refusal(pool, "nobody", "x"))[:2] == ["SESSION_AUTHENTICATION_FAILED", "nobody"]
    assert (await refusal(pool, "dave"))[:2] == ["SESSION_AUTHORIZATION_FAILED", "dave"]
    assert (await refusal(pool, "alice"))[:2] == ["RBAC_PERMISSION_DENIED", "session.login_with_password"]


HOSTILE = [
    ("alice", ""),
    ("alice", "\x00"),
    ("alice\x00", people.password("alice")),
    ("alice\n", people.password("alice")),
    ("", people.password("alice")),
    (" ", "x"),
    ("*", people.password("alice")),
    ("alice)(uid=*", people.password("alice")),
    ("a" * 100_000, "x"),
    ("alice", "x" * 100_000),
    ("Root", "x"),
]


async def test_hostile_names_and_passwords_are_nobodys(pool: Pool, root: Client) -> None:
    await add_subject(root, "alice", "pool-admin")
    for user, password in HOSTILE:
        assert (await refusal(pool, user, password))[0] == "SESSION_AUTHENTICATION_FAILED", (user[:20], password[:20])


async def test_root_is_never_the_directorys(pool: Pool, root: Client, openldap: Slapd) -> None:
    await add_subject(root, "alice", "read-only")
    pool.set_password("alice", "local")
    assert (await refusal(pool, "alice", "local"))[0] == "SESSION_AUTHENTICATION_FAILED"
    pool.set_password("root", "local")
    local = await login(pool, "root", "local")
    assert pool.row("session", local.session)["is_local_superuser"]


async def test_a_suspended_account_is_refused_although_the_password_is_right(
    pool: Pool, root: Client, openldap: Slapd
) -> None:
    await add_subject(root, "alice", "vm-operator")
    openldap.set(people.user("alice"), "shadowExpire", "1")
    try:
        assert await refusal(pool, "alice") == [
            "SESSION_AUTHORIZATION_FAILED",
            "alice",
            "the account has expired",
        ]
    finally:
        openldap.set(people.user("alice"), "shadowExpire", "-1")


@pytest.mark.parametrize(("elapsed", "wait"), [(0.0, 5.0), (0.01, 4.99), (4.0, 1.0), (7.0, 3.0), (5.0, 5.0)])
def test_how_long_a_failure_takes_tells_nothing(elapsed: float, wait: float) -> None:
    assert remaining(5.0, elapsed) == pytest.approx(wait)
    assert remaining(0.0, elapsed) == 0.0


async def test_failures_take_longer(pool: Pool, root: Client) -> None:
    pool.api.directory.logins.failure_delay = 0.3
    began = time.monotonic()
    await refusal(pool, "alice", "wrong")
    assert time.monotonic() - began >= 0.3


async def test_a_directory_that_is_away_is_not_the_users_fault_and_root_gets_in(
    pool: Pool, root: Client, openldap: Slapd
) -> None:
    pool.set_password("root", "local")
    await add_subject(root, "operators", "vm-operator")
    alice = await login(pool, "alice")
    openldap.stop()
    try:
        assert (await refusal(pool, "bob"))[:2] == ["INTERNAL_ERROR", "session.login_with_password"]
        await login(pool, "root", "local")
        await pool.api.directory.revalidation.look()
        await alice.call("VM.get_all")  # for a while nobody is thrown out for that
        asked = await root.refusal("auth.get_subject_identifier", "bob")
        assert asked[0] == "AUTH_SERVICE_ERROR"
    finally:
        openldap.start()
    await login(pool, "bob")


# ---- when the directory is off


async def test_without_a_directory_its_messages_say_so(pool: Pool, root: Client) -> None:
    await disable(root)
    for message in ("get_subject_identifier", "get_subject_information_from_identifier", "get_group_membership"):
        assert await root.refusal(f"auth.{message}", "alice") == ["AUTH_IS_DISABLED"]
    assert await root.refusal("subject.create", {"subject_identifier": "x", "other_config": {}}) == ["AUTH_IS_DISABLED"]
    assert (await refusal(pool, "alice"))[0] == "SESSION_AUTHENTICATION_FAILED"


# ---- remembered logins


async def count_asked(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that the directory is asked about from now on."""
    asked: list[str] = []
    plugin = await pool.api.directory.own.plugin()
    ask = plugin.authenticate_username_password

    async def noted(name: str, password: str) -> str:
        asked.append(name)
        return await ask(name, password)

    monkeypatch.setattr(plugin, "authenticate_username_password", noted)
    return asked


@pytest.mark.usefixtures("cached")
async def test_a_login_that_succeeded_is_remembered_until_something_changes(
    pool: Pool, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    operators = await add_subject(root, "operators", "vm-operator")
    asked = await count_asked(pool, monkeypatch)
    for _ in range(3):
        await login(pool, "alice")
    assert asked == ["alice"]
    assert (await refusal(pool, "alice", "wrong"))[0] == "SESSION_AUTHENTICATION_FAILED"
    assert asked == ["alice"] * 2
    await root.call("subject.destroy", operators)
    assert (await refusal(pool, "alice"))[0] == "SESSION_AUTHORIZATION_FAILED"
    assert asked == ["alice"] * 3


async def test_nothing_is_remembered_while_that_is_switched_off(
    pool: Pool, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    [ref] = pool.store.rows("pool")
    await root.call("pool.set_ext_auth_cache_enabled", ref, False)
    await add_subject(root, "operators", "vm-operator")
    asked = await count_asked(pool, monkeypatch)
    for _ in range(2):
        await login(pool, "alice")
    assert asked == ["alice"] * 2


@pytest.mark.parametrize("most", [1, 2])
async def test_no_more_logins_at_once_than_allowed(
    pool: Pool, root: Client, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    [ref] = pool.store.rows("pool")
    await pool.write(
        Update(cls="pool", ref=ref, fields={"ext_auth_max_threads": most, "ext_auth_cache_enabled": False})
    )
    plugin = await pool.api.directory.own.plugin()
    busy, highest = 0, 0

    async def slow(name: str, password: str) -> str:
        nonlocal busy, highest
        busy += 1
        highest = max(highest, busy)
        await asyncio.sleep(0.02)
        busy -= 1
        raise ApiError("INTERNAL_ERROR", "enough")

    monkeypatch.setattr(plugin, "authenticate_username_password", slow)
    await asyncio.gather(*(error_of(login(pool, "alice")) for _ in range(4)))
    assert highest == most
