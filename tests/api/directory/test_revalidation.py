"""Sessions end when the directory, or the pool, does not want their users any more."""

from __future__ import annotations

import pytest

from services.api import clock
from services.api.directory.revalidation import LONGEST_DOUBT
from shared.contracts.db import Update
from tests.api.directory import people
from tests.api.directory.login import add_subject, disable, enable, login
from tests.api.harness import Client, Pool
from tests.support.slapd import Slapd


@pytest.fixture(autouse=True)
async def joined(root: Client, openldap: Slapd) -> None:
    await enable(root, openldap)


async def assert_ended(client: Client) -> None:
    assert await client.refusal("VM.get_all") == ["SESSION_INVALID", client.session]


async def test_a_disabled_account_is_thrown_out(pool: Pool, root: Client, openldap: Slapd) -> None:
    await add_subject(root, "operators", "vm-operator")
    alice, bob = await login(pool, "alice"), await login(pool, "bob")
    openldap.set(people.user("alice"), "pwdAccountLockedTime", "000001010000Z")
    try:
        await pool.api.directory.revalidation.look()
        await assert_ended(alice)
        await bob.call("VM.get_all")
        await root.call("VM.get_all")
    finally:
        openldap.change(f"dn: {people.user('alice')}\nchangetype: modify\ndelete: pwdAccountLockedTime\n")


async def test_who_left_the_group_is_thrown_out(pool: Pool, root: Client, openldap: Slapd) -> None:
    await add_subject(root, "admins", "pool-admin")
    carol = await login(pool, "carol")
    openldap.set(people.group("admins"), "memberUid", "dave")
    try:
        await pool.api.directory.revalidation.look()
        await assert_ended(carol)
    finally:
        openldap.set(people.group("admins"), "memberUid", "carol")


async def test_who_was_removed_is_thrown_out(pool: Pool, root: Client, openldap: Slapd) -> None:
    openldap.change(
        f"dn: {people.user('erin')}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: erin\ncn: Erin\nsn: Erin\n"
        "userPassword: erin's\n"
    )
    await add_subject(root, "erin", "vm-operator")
    erin = await login(pool, "erin", "erin's")
    openldap.delete(people.user("erin"))
    await pool.api.directory.revalidation.look()
    await assert_ended(erin)


async def test_a_session_ends_soon_after_its_subject_has_gone(pool: Pool, root: Client) -> None:
    operators = await add_subject(root, "operators", "vm-operator")
    alice = await login(pool, "alice")
    await root.call("subject.destroy", operators)
    await pool.until(lambda: pool.row("session", alice.session) is None)


async def test_all_sessions_of_the_directory_end_with_it(pool: Pool, root: Client) -> None:
    await add_subject(root, "operators", "vm-operator")
    alice = await login(pool, "alice")
    await disable(root)
    await pool.until(lambda: pool.row("session", alice.session) is None)
    await root.call("VM.get_all")


async def test_a_good_session_stays_and_is_noted_as_such(pool: Pool, root: Client) -> None:
    await add_subject(root, "operators", "vm-operator")
    alice = await login(pool, "alice")
    old = clock.stamp(clock.seconds(clock.now()) - 3 * LONGEST_DOUBT)
    await pool.write(Update(cls="session", ref=alice.session, fields={"validation_time": old}))
    await pool.api.directory.revalidation.look()
    assert pool.row("session", alice.session)["validation_time"] > old


async def test_without_the_directory_sessions_last_for_a_while_only(pool: Pool, root: Client, openldap: Slapd) -> None:
    await add_subject(root, "operators", "vm-operator")
    alice, bob = await login(pool, "alice"), await login(pool, "bob")
    old = clock.stamp(clock.seconds(clock.now()) - LONGEST_DOUBT - 60)
    await pool.write(Update(cls="session", ref=alice.session, fields={"validation_time": old}))
    openldap.stop()
    try:
        await pool.api.directory.revalidation.look()
    finally:
        openldap.start()
    await assert_ended(alice)
    await bob.call("VM.get_all")


async def test_what_the_directory_says_about_subjects_is_kept_up_to_date(
    pool: Pool, root: Client, openldap: Slapd
) -> None:
    alice = await add_subject(root, "alice", "vm-operator")
    await pool.write(Update(cls="subject", ref=alice, fields={"other_config": {"subject-name": "old", "mine": "kept"}}))
    await pool.api.directory.revalidation.refresh_subjects()
    told = pool.row("subject", alice)["other_config"]
    assert (told["subject-name"], told["subject-displayname"], told["mine"]) == ("alice", "Alice Example", "kept")
