"""The LDAP plug-in against a real slapd that looks like Active Directory, with a proxy before it that knows the
directory's rule for groups of groups.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.api.directory.ad_schema import sid_bytes, sid_text
from services.api.directory.ldap import SCHEMAS, LdapPlugin
from services.api.directory.plugin import AuthFailure, ServiceError, SubjectNotFound
from tests.api.directory import people
from tests.api.directory.chain_proxy import ChainProxy
from tests.support.slapd import Slapd


@pytest.fixture
async def proxy(active_directory: Slapd) -> AsyncIterator[ChainProxy]:
    async with ChainProxy(active_directory.port, people.MEMBERS).running() as proxy:
        yield proxy


@pytest.fixture
async def plugin(proxy: ChainProxy) -> AsyncIterator[LdapPlugin]:
    config = {
        "server": f"ldap://127.0.0.1:{proxy.port}",
        "starttls": "false",
        "user": people.READER,
        "pass": people.READER_PASSWORD,
    }
    plugin = LdapPlugin(SCHEMAS["AD"], "example.test", config)
    await plugin.on_enable({})
    yield plugin
    await plugin.on_xapi_exit()


@pytest.mark.parametrize("spelling", ["alice", r"EXAMPLE\alice", r"example.test\alice", "alice@example.test", "Alice"])
async def test_users_log_in_by_short_name_domain_and_principal_name(plugin: LdapPlugin, spelling: str) -> None:
    found = await plugin.authenticate_username_password(spelling, people.password("alice"))
    assert found == people.sid("alice")


@pytest.mark.parametrize(
    "name", [r"OTHER\alice", "alice@other.test", "*", "alice)(objectClass=*", "operators", "a\x00"]
)
async def test_others_do_not(plugin: LdapPlugin, name: str) -> None:
    with pytest.raises(AuthFailure):
        await plugin.authenticate_username_password(name, people.password("alice"))


async def test_users_are_known_by_their_sid(plugin: LdapPlugin) -> None:
    told = await plugin.query_subject_information(people.sid("alice"))
    assert told["subject-name"] == r"EXAMPLE\alice"
    assert told["subject-upn"] == "alice@example.test"
    assert told["subject-sid"] == people.sid("alice")
    assert told["subject-is-group"] == "false"


@pytest.mark.parametrize("identifier", ["", "S-1", "S-1-5-21-1-2-3-4", "S-999-5-1", "S-1-5-99999999999", "*", "u0"])
async def test_what_is_no_sid_is_nobodys(plugin: LdapPlugin, identifier: str) -> None:
    with pytest.raises(SubjectNotFound):
        await plugin.query_subject_information(identifier)


async def test_the_server_follows_groups_and_the_primary_group_counts(plugin: LdapPlugin, proxy: ChainProxy) -> None:
    def sids(*names: str) -> set[str]:
        return {people.sid(name) for name in names}

    assert set(await plugin.query_group_membership(people.sid("bob"))) == sids(
        "night-shift", "operators", "circle", "domain-users"
    )
    assert set(await plugin.query_group_membership(people.sid("dave"))) == sids("domain-users")
    assert proxy.chains > 0


@pytest.mark.parametrize(
    ("attribute", "value", "key"),
    [
        ("userAccountControl", "514", "subject-account-disabled"),
        ("accountExpires", "116444736000000000", "subject-account-expired"),
        ("lockoutTime", "132500000000000000", "subject-account-locked"),
        ("msDS-User-Account-Control-Computed", "16", "subject-account-locked"),
        ("msDS-User-Account-Control-Computed", "8388608", "subject-password-expired"),
        ("pwdLastSet", "0", "subject-password-expired"),
    ],
)
async def test_closed_accounts_show(
    active_directory: Slapd, plugin: LdapPlugin, attribute: str, value: str, key: str
) -> None:
    before = await plugin.query_subject_information(people.sid("dave"))
    dave = people.user("dave")
    active_directory.set(dave, attribute, value)
    try:
        after = await plugin.query_subject_information(people.sid("dave"))
        assert {name for name in after if after[name] != before[name]} == {key}
    finally:
        healthy = {"userAccountControl": "512", "accountExpires": "0", "pwdLastSet": "132500000000000000"}
        if attribute in healthy:
            active_directory.set(dave, attribute, healthy[attribute])
        else:
            active_directory.change(f"dn: {dave}\nchangetype: modify\ndelete: {attribute}\n")


def test_a_sid_is_the_same_there_and_back() -> None:
    for text in ("S-1-5-32-544", "S-1-5-21-4294967295-0-1-500", "S-1-1-0", "S-1-281474976710655-1"):
        assert sid_text(sid_bytes(text)) == text


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x01\x05" + b"\x00" * 6, b"\x01\x01" + b"\x00" * 20])
def test_bytes_that_are_no_sid_are_not_taken_for_one(raw: bytes) -> None:
    with pytest.raises(ServiceError):
        sid_text(raw)
