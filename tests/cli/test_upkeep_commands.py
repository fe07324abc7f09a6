"""Commands for looking after hosts and the pool."""

from __future__ import annotations

import pytest

from shared.errors import ApiError
from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.thin_client import ThinClient

FILES = {"/c/own.pem": b"certificate\n", "/c/key.pem": b"key\n", "/c/chain.pem": b"chain\n"}


@pytest.fixture
def host(api: FakeXenApi) -> str:
    return next(iter(api.rows["host"]))


@pytest.fixture
def pool(api: FakeXenApi) -> str:
    return next(iter(api.rows["pool"]))


async def test_a_host_gets_a_certificate_from_files_of_the_clients(api: FakeXenApi, host: str) -> None:
    api.on["host.install_server_certificate"] = lambda *params: ""
    xe = ThinClient(api, files=FILES)
    words = ("host-server-certificate-install", "certificate=/c/own.pem", "private-key=/c/key.pem")
    assert (await xe(*words)).status == 0
    assert (await xe(*words, "certificate-chain=/c/chain.pem")).status == 0
    assert api.calls("host.install_server_certificate") == [
        (host, "certificate\n", "key\n", ""),
        (host, "certificate\n", "key\n", "chain\n"),
    ]
    outcome = await xe("host-server-certificate-install", "certificate=/gone", "private-key=/c/key.pem")
    assert outcome.status == 1
    assert "Failed to read /gone" in outcome.stderr


async def test_files_are_installed_under_their_own_names(api: FakeXenApi, pool: str) -> None:
    for message in ("install_ca_certificate", "crl_install", "install_trusted_certificate"):
        api.on[f"pool.{message}"] = lambda *params: ""
    xe = ThinClient(api, files=FILES)
    await xe("pool-install-ca-certificate", "filename=/c/own.pem")
    await xe("pool-crl-install", "filename=/c/chain.pem")
    await xe("pool-install-trusted-certificate", "filename=/c/own.pem", "ca=false", "purpose=ldaps,licensing")
    assert api.calls("pool.install_ca_certificate") == [("own.pem", "certificate\n")]
    assert api.calls("pool.crl_install") == [("chain.pem", "chain\n")]
    assert api.calls("pool.install_trusted_certificate") == [(pool, False, "certificate\n", ["ldaps", "licensing"])]


async def test_commands_about_the_pool_need_not_name_it(api: FakeXenApi, xe: ThinClient, pool: str) -> None:
    api.on["pool.get_guest_secureboot_readiness"] = lambda ref: "ready_no_dbx"
    api.on["pool.configure_update_sync"] = lambda *params: ""
    assert (await xe("pool-get-guest-secureboot-readiness")).stdout == "ready_no_dbx\n"
    assert (await xe("pool-configure-update-sync", "update-sync-frequency=weekly", "update-sync-day=2")).status == 0
    assert api.calls("pool.configure_update_sync") == [(pool, "weekly", 2)]


async def test_timings_are_sorted_and_hosts_that_have_none_say_why(api: FakeXenApi, xe: ThinClient) -> None:
    api.on["host.get_diagnostic_timing_stats"] = lambda *params: {"b": "2", "a": "1"}
    lines = [line.split(":")[0].strip() for line in (await xe("diagnostic-timing-stats")).stdout.splitlines()]
    assert [line for line in lines if line] == ["host-uuid", "host-name-label", "a", "b"]

    def away(*params: object) -> object:
        raise ApiError("HOST_OFFLINE", "x")

    api.on["host.get_diagnostic_timing_stats"] = away
    assert "Error" in (await xe("diagnostic-timing-stats")).stdout


async def test_an_edition_is_applied_with_its_licence_server(api: FakeXenApi, xe: ThinClient, host: str) -> None:
    for message in ("apply_edition", "remove_from_license_server", "add_to_license_server"):
        api.on[f"host.{message}"] = lambda *params: ""
    words = ("host-apply-edition", "edition=free/libre", f"host-uuid={api.uuid(host)}")
    assert (await xe(*words, "license-server-address=licences.test")).status == 0
    assert api.calls("host.add_to_license_server") == [(host, "address", "licences.test")]
    assert api.calls("host.apply_edition") == [(host, "free/libre", False)]


async def test_a_member_takes_over_and_a_coordinator_only_when_it_is_forced(api: FakeXenApi, xe: ThinClient) -> None:
    slave = {"value": True}
    api.on["pool.is_slave"] = lambda host: slave["value"]
    api.on["pool.emergency_transition_to_master"] = lambda: ""
    command = "pool-emergency-transition-to-master"
    assert "will restart and transition to master" in (await xe(command)).stdout
    slave["value"] = False
    assert (await xe(command)).stdout == (
        "Host agent is already master. Use '--force' to execute the operation anyway.\n"
    )
    assert len(api.calls("pool.emergency_transition_to_master")) == 1
    assert (await xe(command, "--force")).status == 0
    assert len(api.calls("pool.emergency_transition_to_master")) == 2


async def test_a_member_is_told_where_its_coordinator_is(api: FakeXenApi, xe: ThinClient) -> None:
    api.on["pool.emergency_reset_master"] = lambda address: ""
    done = await xe("pool-emergency-reset-master", "master-address=192.0.2.7")
    assert done.stdout == "Host agent will restart and become slave of 192.0.2.7 in 10.000 seconds...\n"
    assert api.calls("pool.emergency_reset_master") == [("192.0.2.7",)]
