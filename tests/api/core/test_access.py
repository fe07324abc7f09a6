"""Proofs of identity that come with an HTTP request: what session each gives, and for how long."""

from __future__ import annotations

import pytest

from services.api.access import Access
from services.api.client_trust import ClientTrustFollower
from services.api.edge.client_trust import ClientTrust
from services.api.edge.dispatcher import Basic, Caller, Certificate, Credential, PoolSecret, Session, Trusted
from shared.config import ConfigError
from shared.contracts.db import Create
from shared.datamodel.roles import CLIENT_CERT
from shared.store import NULL
from tests.api.harness import Client, Pool, error_of

EXPORT = "http/get_export"
UPDATES = "http/get_updates"
"""Which clients with a certificate may use."""


def caller(pool: Pool, host: int = 0, *, certificate: bool = False) -> Caller:
    uuid = pool.hosts[host].uuid
    return Caller(host=uuid, address="192.0.2.7", user_agent="curl/8", secure=True, certificate=certificate)


async def entered(pool: Pool, credential: Credential, permission: str = EXPORT, host: int = 0, **told: bool) -> str:
    """The session that was given, which is over again. Its row is looked at inside."""
    access = Access(pool.core_of(host).api)
    async with access.session(caller(pool, host, **told), credential, permission) as session:
        return session


async def test_root_on_the_machine_and_a_session_of_ones_own_make_no_session(pool: Pool, client: Client) -> None:
    before = set(pool.store.rows("session"))
    assert await entered(pool, Trusted()) == ""
    assert await entered(pool, Session(client.session)) == client.session
    assert set(pool.store.rows("session")) == before


async def test_a_session_that_is_none_or_may_not_is_refused(pool: Pool) -> None:
    assert await error_of(entered(pool, Session("OpaqueRef:x"))) == ["SESSION_INVALID", "OpaqueRef:x"]
    fields = {"this_host": NULL, "this_user": NULL, "last_active": "20200101T00:00:00Z", "auth_user_name": "ann"}
    await pool.write(Create(cls="session", ref="OpaqueRef:ann", fields=fields))
    assert (await error_of(entered(pool, Session("OpaqueRef:ann"))))[:2] == ["RBAC_PERMISSION_DENIED", EXPORT]


async def test_the_pool_secret_gives_a_session_of_a_host_for_as_long_as_the_request_lasts(pool: Pool) -> None:
    access = Access(pool.api)
    async with access.session(caller(pool), PoolSecret(pool.secret), EXPORT) as session:
        row = pool.row("session", session)
        assert (row["pool"], row["is_local_superuser"]) == (True, True)
    assert pool.row("session", session) is None
    for wrong in ("", pool.secret[:-1], pool.secret + "x"):
        refused = await error_of(entered(pool, PoolSecret(wrong)))
        assert refused[0] == "SESSION_AUTHENTICATION_FAILED"


async def test_a_password_gives_a_session_whose_originator_says_so(pool: Pool) -> None:
    pool.set_password("root", "correct horse")
    access = Access(pool.api)
    async with access.session(caller(pool), Basic("root", "correct horse"), EXPORT) as session:
        row = pool.row("session", session)
        assert (row["originator"], row["auth_user_name"]) == ("curl/8 using Basic auth", "root")
    assert pool.row("session", session) is None
    refused = await error_of(entered(pool, Basic("root", "wrong horse")))
    assert refused[:2] == ["SESSION_AUTHENTICATION_FAILED", "root"]


async def test_the_session_of_a_request_ends_also_when_the_request_fails(pool: Pool) -> None:
    pool.set_password("root", "correct horse")
    before = set(pool.store.rows("session"))
    access = Access(pool.api)
    with pytest.raises(RuntimeError, match="broken"):
        async with access.session(caller(pool), Basic("root", "correct horse"), EXPORT):
            raise RuntimeError("broken")
    assert set(pool.store.rows("session")) == before


async def test_a_members_handlers_know_sessions_that_were_just_made(pool: Pool) -> None:
    await pool.start_api(1)
    pool.set_password("root", "correct horse")
    client = pool.client()
    for _ in range(5):
        session = await client.raw("session.login_with_password", "root", "correct horse")
        assert await entered(pool, Session(session), host=1) == session
    assert await error_of(entered(pool, Session("OpaqueRef:x"), host=1)) == ["SESSION_INVALID", "OpaqueRef:x"]
    assert await entered(pool, PoolSecret(pool.secret), host=1)


# ---- clients with certificates


class Listeners:
    """Remembers what the TLS listeners were told."""

    def __init__(self) -> None:
        self.told: list[ClientTrust | None] = []

    def trust_clients(self, trust: ClientTrust | None) -> None:
        if trust is not None and "broken" in trust.authorities:
            raise ConfigError("it is broken")
        self.told.append(trust)


async def enable(pool: Pool, client: Client, name: str = "backup") -> None:
    await client.call("pool.enable_client_certificate_auth", pool.ref("pool", "pool"), name)


async def test_a_certificate_counts_while_the_pool_says_so(pool: Pool, client: Client) -> None:
    stranger = await error_of(entered(pool, Certificate(), UPDATES, certificate=True))
    assert stranger[0] == "SESSION_AUTHENTICATION_FAILED"
    await enable(pool, client)
    access = Access(pool.api)
    async with access.session(caller(pool, certificate=True), Certificate(), UPDATES) as session:
        row = pool.row("session", session)
        assert (row["client_certificate"], row["is_local_superuser"], row["pool"]) == (True, False, False)
    assert pool.row("session", session) is None
    refused = await error_of(entered(pool, Certificate(), EXPORT, certificate=True))
    assert refused[:2] == ["RBAC_PERMISSION_DENIED", EXPORT]


async def test_a_login_with_a_certificate_needs_no_password_and_gets_that_role(pool: Pool, client: Client) -> None:
    await enable(pool, client)
    known = pool.client(certificate=True)
    known.session = await known.raw("session.login_with_password", "whoever", "")
    record = await known.call("session.get_record", known.session)
    assert (record["auth_user_name"], record["client_certificate"], record["is_local_superuser"]) == (
        "whoever",
        True,
        False,
    )
    [role] = [ref for ref in await client.call("role.get_by_name_label", CLIENT_CERT)]
    assert set(record["rbac_permissions"]) == set(await client.call("role.get_permissions_name_label", role))
    assert await known.call("pool.get_all")
    assert (await known.refusal("VM.clone", pool.ref("VM", "Tiny guest"), "x"))[0] == "RBAC_PERMISSION_DENIED"
    pool.set_password("root", "correct horse")
    ordinary = await error_of(pool.client().raw("session.login_with_password", "whoever", ""))
    assert ordinary[0] == "SESSION_AUTHENTICATION_FAILED"


async def test_switching_it_off_logs_out_whoever_came_with_a_certificate(pool: Pool, client: Client) -> None:
    await enable(pool, client)
    known = pool.client(certificate=True)
    known.session = await known.raw("session.login_with_password", "whoever", "")
    await client.call("pool.disable_client_certificate_auth", pool.ref("pool", "pool"))
    assert await known.refusal("pool.get_all") == ["SESSION_INVALID", known.session]
    assert await client.call("pool.get_client_certificate_auth_name", pool.ref("pool", "pool")) == ""
    assert (await error_of(known.raw("session.login_with_password", "whoever", "")))[0] == (
        "SESSION_AUTHENTICATION_FAILED"
    )


async def test_members_do_not_let_anybody_in_by_certificate(pool: Pool, client: Client) -> None:
    await enable(pool, client)
    await pool.start_api(1)
    known = pool.client(1, certificate=True)
    assert (await error_of(known.raw("session.login_with_password", "whoever", "")))[0] == "HOST_IS_SLAVE"


async def test_the_listeners_follow_the_pool_and_what_it_trusts(pool: Pool, client: Client) -> None:
    listeners = Listeners()
    trusted = pool.core.host_side.trust(pool.hosts[0].uuid)
    ClientTrustFollower(pool.api, listeners, trusted).begin()
    assert listeners.told == []
    await enable(pool, client)
    assert listeners.told == [None]  # nobody can sign certificates yet
    folder = pool.folder / "api-host0" / "trust" / pool.hosts[0].uuid / "ca"
    folder.mkdir(parents=True)
    (folder / "one.pem").write_text("ONE")
    fields = {"name": "one.pem", "type": "ca", "host": NULL, "fingerprint": "", "uuid": pool.secret[:36]}
    await pool.write(Create(cls="Certificate", ref="OpaqueRef:one", fields=fields))
    last = listeners.told[-1]
    assert last is not None
    assert (last.authorities, last.name) == ("ONE\n", "backup")
    await enable(pool, client, "other")
    assert listeners.told[-1] is not None
    assert listeners.told[-1].name == "other"
    (folder / "two.pem").write_text("broken")
    await enable(pool, client, "third")
    assert listeners.told[-1] is None
    (folder / "two.pem").unlink()
    await enable(pool, client, "fourth")
    assert listeners.told[-1] is not None
    await client.call("pool.disable_client_certificate_auth", pool.ref("pool", "pool"))
    assert listeners.told[-1] is None
