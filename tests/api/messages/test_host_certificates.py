"""Certificates that hosts show and trust: files on every host, and rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.bus.contract import Empty
from shared.contracts import host as contract
from shared.contracts.db import Update
from shared.contracts.host import Trust
from tests.api.harness import Client, Pool
from tests.api.messages.pki import DAY, NOW, Authority, certificate, key_pem, rsa_key


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    """Two hosts with an API process each."""
    running = await Pool.start(tmp_path)
    await running.start_api(1)
    yield running
    await running.stop()


def the_pool(pool: Pool) -> str:
    return next(iter(pool.store.rows("pool")))


def rows(pool: Pool, kind: str) -> list[Any]:
    return [row for row in pool.store.rows("Certificate").values() if row["type"] == kind]


async def trusted(pool: Pool, host: int) -> dict[tuple[str, str], str]:
    found = await pool.api.bus.call(contract.TRUSTED, Empty(), host=pool.hosts[host].uuid)
    return {(file.kind, file.name): file.pem for file in found.files}


async def test_a_certificate_is_shown_by_its_host_and_has_a_row(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    root = Authority()
    pem, chain = certificate("host2", issuer=root), root.certificate
    await client.call("host.install_server_certificate", host, pem, key_pem(rsa_key()), chain)
    assert await client.call("host.get_server_certificate", host) == pem + chain
    [row] = rows(pool, "host")
    assert row["host"] == host
    assert len(row["fingerprint_sha256"]) == 95
    assert row["fingerprint"] == row["fingerprint_sha256"]
    assert len(row["fingerprint_sha1"]) == 59


async def test_a_host_signs_itself_a_new_certificate(pool: Pool, client: Client) -> None:
    host = pool.host_ref(0)
    before = await client.call("host.get_server_certificate", host)
    await client.call("host.reset_server_certificate", host)
    after = await client.call("host.get_server_certificate", host)
    assert after != before
    assert "PRIVATE" not in after
    await client.call("host.emergency_reset_server_certificate")
    assert await client.call("host.get_server_certificate", host) != after
    [row] = rows(pool, "host")
    assert row["host"] == host


async def test_hosts_know_a_refreshed_certificate_at_once(pool: Pool, client: Client) -> None:
    await client.call("host.refresh_server_certificate", pool.host_ref(1))
    known = [await trusted(pool, host) for host in (0, 1)]
    assert known[0] == known[1]
    assert {name for kind, name in known[0] if kind == Trust.POOL} == {f"{host.uuid}.pem" for host in pool.hosts}
    assert [row["host"] for row in rows(pool, "host_internal")] == [pool.host_ref(1)]


async def test_what_a_host_cannot_show_is_refused_before_it_is_asked(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    key = key_pem(rsa_key())
    for pem, private, code in (
        ("x", "y", "KEY_INVALID"),
        ("x", key, "INVALID"),
        (certificate(ends=NOW - DAY / 2), key, "EXPIRED"),
    ):
        refused = await client.refusal("host.install_server_certificate", host, pem, private)
        assert refused[0] == f"SERVER_CERTIFICATE_{code}"
    assert await client.refusal("host.get_server_certificate", "OpaqueRef:x") == ["HOST_OFFLINE", "OpaqueRef:x"]
    assert rows(pool, "host") == []


async def test_an_authority_is_on_every_host_until_it_is_removed(pool: Pool, client: Client) -> None:
    pem = Authority().certificate
    await client.call("pool.install_ca_certificate", "ours.pem", pem)
    for host in (0, 1):
        assert await trusted(pool, host) == {(Trust.CA, "ours.pem"): pem}
    [row] = rows(pool, "ca")
    assert (row["name"], row["host"]) == ("ours.pem", "OpaqueRef:NULL")
    assert await client.call("pool.certificate_list") == ["ours.pem"]
    assert await client.refusal("pool.certificate_install", "ours.pem", pem) == [
        "CERTIFICATE_ALREADY_EXISTS",
        "ours.pem",
    ]
    await client.call("pool.uninstall_ca_certificate", "ours.pem")
    assert await trusted(pool, 0) == await trusted(pool, 1) == {}
    assert rows(pool, "ca") == []
    assert await client.refusal("pool.certificate_uninstall", "ours.pem") == ["CERTIFICATE_DOES_NOT_EXIST", "ours.pem"]


async def test_what_one_host_cannot_have_none_has(pool: Pool, client: Client) -> None:
    await client.call("pool.install_ca_certificate", "one.pem", Authority().certificate)
    folder = pool.folder / "api-host1" / "trust" / pool.hosts[1].uuid / "ca"
    (folder / "two.new").mkdir()  # in the way of the file
    refused = await client.refusal("pool.install_ca_certificate", "two.pem", Authority("two", key=2).certificate)
    assert refused[0] == "INTERNAL_ERROR"
    (folder / "two.new").rmdir()
    assert await client.call("pool.certificate_list") == ["one.pem"]
    assert [row["name"] for row in rows(pool, "ca")] == ["one.pem"]
    await client.call("pool.certificate_sync")
    assert await trusted(pool, 0) == await trusted(pool, 1)


async def test_names_and_contents_that_are_none(pool: Pool, client: Client) -> None:
    pem = Authority().certificate
    for name in ("x", "../x.pem", ".x.pem", "a b.pem"):
        assert await client.refusal("pool.install_ca_certificate", name, pem) == ["CERTIFICATE_NAME_INVALID", name]
    assert await client.refusal("pool.install_ca_certificate", "x.pem", key_pem(rsa_key())) == [
        "CA_CERTIFICATE_INVALID"
    ]
    assert await client.refusal("pool.crl_install", "x.pem", pem) == ["CRL_CORRUPT", "x.pem"]


async def test_revocation_lists_are_on_every_host(pool: Pool, client: Client) -> None:
    crl = Authority().crl(5)
    await client.call("pool.crl_install", "ours.pem", crl)
    assert await client.call("pool.crl_list") == ["ours.pem"]
    assert await trusted(pool, 1) == {(Trust.CRL, "ours.pem"): crl}
    assert await client.refusal("pool.crl_install", "ours.pem", crl) == ["CRL_ALREADY_EXISTS", "ours.pem"]
    await client.call("pool.crl_uninstall", "ours.pem")
    assert await client.call("pool.crl_list") == []


async def test_trusted_certificates_are_known_by_their_fingerprint(pool: Pool, client: Client) -> None:
    pem = certificate("server")
    await client.call("pool.install_trusted_certificate", the_pool(pool), False, pem, ["ldaps"])
    [row] = rows(pool, "pinned")
    assert row["purpose"] == ["ldaps"]
    fingerprint = row["fingerprint_sha256"]
    install = "pool.install_trusted_certificate"
    assert await client.refusal(install, the_pool(pool), False, pem, []) == ["CERTIFICATE_LACKS_PURPOSE"]
    again = await client.refusal(install, the_pool(pool), False, pem, ["ldaps"])
    assert again == ["TRUSTED_CERTIFICATE_ALREADY_EXISTS", fingerprint]
    [ref] = pool.store.rows("Certificate")
    await client.call("host.reset_server_certificate", pool.host_ref(0))
    [own] = [ref for ref, row in pool.store.rows("Certificate").items() if row["type"] == "host"]
    assert await client.refusal("pool.uninstall_trusted_certificate", the_pool(pool), own) == [
        "NOT_TRUSTED_CERTIFICATE",
        own,
    ]
    await client.call("pool.uninstall_trusted_certificate", the_pool(pool), ref)
    assert rows(pool, "pinned") == []
    assert await trusted(pool, 1) == {}


async def test_a_host_that_was_away_gets_what_it_missed(pool: Pool, client: Client) -> None:
    await pool.stop_api(1)
    await pool.hosts[1].down()
    metrics = pool.row("host", pool.host_ref(1))["metrics"]
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    await client.call("pool.install_ca_certificate", "ours.pem", Authority().certificate)
    core = await pool.start_api(1)
    await core.host_side.catch_up()
    assert set(await trusted(pool, 1)) == {(Trust.CA, "ours.pem")}
    assert [row["host"] for row in rows(pool, "host")] == [pool.host_ref(1)]


async def test_verification_is_switched_on_everywhere_and_off_in_an_emergency(pool: Pool, client: Client) -> None:
    assert await client.refusal("host.emergency_reenable_tls_verification") == ["TLS_VERIFICATION_NOT_ENABLED_IN_POOL"]
    await client.call("pool.enable_tls_verification")
    assert pool.row("pool", the_pool(pool))["tls_verification_enabled"]
    assert all(host["tls_verification_enabled"] for host in pool.store.rows("host").values())
    await client.call("host.emergency_disable_tls_verification")
    assert not pool.row("host", pool.host_ref(0))["tls_verification_enabled"]
    await client.call("host.emergency_reenable_tls_verification")
    assert pool.row("host", pool.host_ref(0))["tls_verification_enabled"]


async def test_verification_waits_for_hosts_that_are_away(pool: Pool, client: Client) -> None:
    await pool.stop_api(1)
    assert (await client.refusal("pool.enable_tls_verification"))[0] == "HOST_OFFLINE"
    assert not pool.row("pool", the_pool(pool))["tls_verification_enabled"]
