"""The machine under a host: read by everybody, changed only where its owner lets the toolstack do that."""

from __future__ import annotations

import json
import logging
import socket
import time
import zoneinfo
from typing import Any

import msgspec
import pytest

from services.api import clock
from services.api.host_side.machine import chrony_configuration, sources, time_zone
from services.api.operations.host_diagnostics import datapath_line
from shared.contracts.db import Update
from shared.contracts.storage import Datapath
from tests.api.harness import Client, Pool


def the_pool(pool: Pool) -> str:
    return next(iter(pool.store.rows("pool")))


async def test_a_host_tells_its_time(pool: Pool, client: Client) -> None:
    host = pool.host_ref(0)
    assert abs(clock.seconds(await client.call("host.get_servertime", host)) - time.time()) < 5
    local = await client.call("host.get_server_localtime", host)
    assert abs(time.mktime(time.strptime(local, "%Y%m%dT%H:%M:%S")) - time.time()) < 5
    assert await client.call("host.get_ntp_synchronized", host) in (True, False)
    assert isinstance(await client.call("host.get_ntp_servers_status", host), dict)


async def test_a_host_knows_time_zones(pool: Pool, client: Client) -> None:
    zones = await client.call("host.list_timezones", pool.host_ref(0))
    assert {"UTC", "Europe/Berlin"} <= set(zones) == zoneinfo.available_timezones()
    assert time_zone() in zones
    assert await client.refusal("host.set_timezone", pool.host_ref(0), "frob") == ["INVALID_VALUE", "timezone", "frob"]


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("set_timezone", ["UTC"]),
        ("set_ntp_mode", ["DHCP"]),
        ("set_hostname_live", ["other"]),
        ("set_ssh_enabled_timeout", [60]),
        ("set_console_idle_timeout", [60]),
        ("set_max_cstate", ["1"]),
    ],
)
async def test_a_machine_that_is_not_the_toolstacks_is_left_alone(
    pool: Pool, client: Client, message: str, value: list[Any]
) -> None:
    host = pool.host_ref(0)
    before = dict(pool.row("host", host))
    assert (await client.refusal(f"host.{message}", host, *value))[0] == "OPERATION_NOT_ALLOWED"
    assert pool.row("host", host) == before


async def test_values_that_no_machine_could_follow(pool: Pool, client: Client) -> None:
    host = pool.host_ref(0)
    for message, value, refusal in (
        ("set_ssh_enabled_timeout", -1, ["INVALID_VALUE", "ssh_enabled_timeout", "-1"]),
        ("set_ssh_enabled_timeout", 172801, ["INVALID_VALUE", "ssh_enabled_timeout", "172801"]),
        ("set_console_idle_timeout", -1, ["INVALID_VALUE", "console_timeout", "-1"]),
        ("set_max_cstate", "C1", ["INVALID_VALUE", "max_cstate", "C1"]),
        ("set_ntp_custom_servers", ["a b"], ["INVALID_VALUE", "ntp_custom_servers", "a b"]),
        ("set_hostname_live", "-x", ["HOST_NAME_INVALID", "hostname contains invalid characters"]),
    ):
        assert await client.refusal(f"host.{message}", host, value) == refusal
    assert (await client.refusal("host.set_max_cstate", host, "5"))[0] == "VALUE_NOT_SUPPORTED"
    assert (await client.refusal("host.set_ntp_mode", host, "Custom"))[0] == "INVALID_NTP_CONFIG"
    refusal = await client.refusal("host.set_servertime", host, "20300101T00:00:00Z")
    assert refusal == ["NOT_ALLOWED_WHEN_NTP_IS_ENABLED", host]
    assert (await client.refusal("host.set_max_cstate", host, "2,1"))[0] == "VALUE_NOT_SUPPORTED"


async def test_time_servers_may_be_chosen_before_they_are_asked(pool: Pool, client: Client) -> None:
    await client.call("host.set_ntp_custom_servers", pool.host_ref(0), ["ntp.example.org", "2001:db8::1"])
    assert sorted(pool.row("host", pool.host_ref(0))["ntp_custom_servers"]) == ["2001:db8::1", "ntp.example.org"]


async def test_ssh_servers_are_not_the_toolstacks(pool: Pool, client: Client) -> None:
    await pool.start_api(1)
    hosts = [pool.host_ref(0), pool.host_ref(1)]
    assert await client.refusal("host.enable_ssh", hosts[0]) == ["ENABLE_SSH_FAILED", hosts[0]]
    assert await client.refusal("host.disable_ssh", hosts[1]) == ["DISABLE_SSH_FAILED", hosts[1]]
    code, failed = await client.refusal("pool.disable_ssh", the_pool(pool))
    assert code == "DISABLE_SSH_PARTIALLY_FAILED"
    assert sorted(failed.split(",")) == sorted(hosts)
    refused = await client.refusal("pool.set_console_idle_timeout", the_pool(pool), -1)
    assert refused == ["INVALID_VALUE", "console_timeout", "-1"]
    await client.call("pool.set_ssh_auto_mode", the_pool(pool), False)
    assert (await client.refusal("pool.set_ssh_auto_mode", the_pool(pool), True))[0] == "NOT_IMPLEMENTED"


async def test_a_machine_in_use_is_not_powered_off(pool: Pool, client: Client) -> None:
    host = pool.host_ref(0)
    vm = await pool.vm(client)
    await client.call("VM.start_on", vm, host, False, False)
    for message in ("host.shutdown", "host.reboot"):
        assert await client.refusal(message, host) == ["HOST_NOT_DISABLED"]
    await client.call("host.disable", host)
    assert await client.refusal("host.reboot", host) == ["HOST_IN_USE", host, "VM", vm]
    await client.call("VM.hard_shutdown", vm)
    assert (await client.refusal("host.reboot", host))[0] == "OPERATION_NOT_ALLOWED"
    assert pool.row("host", host)["current_operations"] == {}


async def test_a_machine_that_goes_down_lets_go_of_vms_and_storage(pool: Pool, client: Client) -> None:
    host = pool.host_ref(1)
    vm = await pool.vm(client)
    await client.call("VM.start_on", vm, host, False, False)
    await client.call("host.prepare_for_poweroff", host)
    assert pool.row("VM", vm)["power_state"] == "Halted"
    assert not any(pool.row("PBD", pbd)["currently_attached"] for pbd in pool.row("host", host)["PBDs"])
    assert not pool.row("host", host)["enabled"]


# ---- the API process


async def test_a_process_says_what_it_does(pool: Pool, client: Client) -> None:
    host = pool.host_ref(0)
    assert "thread MainThread" in await client.call("host.get_thread_diagnostics", host)
    await client.call("host.disable", host)
    timings = await client.call("host.get_diagnostic_timing_stats", host, True)
    assert timings["host.disable"].startswith("1 calls, ")
    assert await client.call("host.get_sm_diagnostics", host) == ""
    await client.call("host.sm_dp_destroy", host, "x", True)


def test_a_datapath_that_could_not_be_closed_is_shown_as_leaked() -> None:
    path = Datapath(dp="task/1", sr="sr", location="disk", state="activated", writable=True)
    assert datapath_line(path) == "task/1: SR sr VDI disk activated RW"
    assert datapath_line(msgspec.structs.replace(path, leaked=True)) == "task/1: SR sr VDI disk activated RW leaked"


async def test_restarting_a_hosts_process_ends_it(pool: Pool, client: Client) -> None:
    await pool.start_api(1)
    service = pool._apis[1][0]
    await client.call("host.restart_agent", pool.host_ref(1))
    assert not service.stopping.is_set()
    await service.stopping.wait()
    assert not (service.state_dir / "stay-down").exists()


async def test_a_process_that_is_shut_down_is_not_to_be_started(pool: Pool, client: Client) -> None:
    service = pool._apis[0][0]
    await client.call("host.shutdown_agent")
    await service.stopping.wait()
    assert (service.state_dir / "stay-down").exists()


async def test_log_lines_go_where_the_host_says(pool: Pool, client: Client) -> None:
    host = pool.host_ref(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        destination = f"127.0.0.1:{receiver.getsockname()[1]}"
        await client.call("host.set_logging", host, {"syslog_destination": destination})
        await client.call("host.syslog_reconfigure", host)
        logging.getLogger("tests").error("a line")
        line = receiver.recv(4096)
        assert json.loads(line[line.index(b"{") : line.rindex(b"}") + 1])["message"] == "a line"
        await pool.stop_api()
        await (await pool.start_api()).host_side.catch_up()
        logging.getLogger("tests").error("after a restart")
        while b"after a restart" not in receiver.recv(4096):
            pass  # what the new process says of itself goes there too
        client = await pool.login()
        await client.call("host.set_logging", host, {"syslog_destination": ""})
        await client.call("host.syslog_reconfigure", host)
        logging.getLogger("tests").error("another line")
        receiver.settimeout(0.2)
        with pytest.raises(TimeoutError):
            receiver.recv(4096)
    await client.call("host.set_logging", host, {"syslog_destination": "no:port"})
    refused = await client.refusal("host.syslog_reconfigure", host)
    assert refused == ["INVALID_VALUE", "syslog_destination", "no:port"]


async def test_only_https_is_a_hosts_or_the_pools_choice(pool: Pool, client: Client) -> None:
    await pool.start_api(1)
    await client.call("host.set_https_only", pool.host_ref(1), True)
    assert [row["https_only"] for row in pool.store.rows("host").values()].count(True) == 1
    await client.call("pool.set_https_only", the_pool(pool), True)
    assert all(row["https_only"] for row in pool.store.rows("host").values())
    metrics = pool.row("host", pool.host_ref(1))["metrics"]
    await pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    assert (await client.refusal("pool.set_https_only", the_pool(pool), False))[0] == "HOST_OFFLINE"
    assert all(row["https_only"] for row in pool.store.rows("host").values())


# ---- what is decided from text


CHRONY = "pool 2.debian.pool.ntp.org iburst\nsourcedir /run/chrony-dhcp\ndriftfile /var/lib/chrony/chrony.drift\n"


def test_chronys_configuration_loses_nothing() -> None:
    custom = chrony_configuration(CHRONY, "Custom", ["a.example", "b.example"])
    asked = [line for line in custom.splitlines() if not line.startswith("#")]
    assert [line.split()[:2] for line in asked] == [
        ["driftfile", "/var/lib/chrony/chrony.drift"],
        ["server", "a.example"],
        ["server", "b.example"],
    ]
    dhcp = chrony_configuration(custom, "DHCP", [])
    assert "\nsourcedir /run/chrony-dhcp\n" in dhcp
    assert "\npool" not in f"\n{dhcp}"
    assert chrony_configuration(dhcp, "Factory", []) == CHRONY


def test_what_chrony_says_of_its_servers() -> None:
    text = "^,*,192.0.2.1,2,6,377,5,0.1,0.1,0.2\n^,?,2001:db8::1,0,6,0,4,0,0,0\n"
    assert sources(text) == {"192.0.2.1": "current", "2001:db8::1": "unreachable"}
