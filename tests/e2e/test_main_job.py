"""The pool's main job, with the XenAPI module from PyPI and no changes: the same on QEMU and on the simulator."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import XenAPI

from tests.e2e import client
from tests.support.pool import ROOT, PoolUnderTest

pytestmark = pytest.mark.pool


def test_a_vm_lives_from_template_to_destroy(pool: PoolUnderTest, session: Any) -> None:
    api = session.xenapi
    assert {row["name_label"]: row["address"] for row in api.host.get_all_records().values()} == pool.hosts
    assert pool.plan.sr is not None
    assert pool.plan.sr.uuid in [row["uuid"] for row in api.SR.get_all_records().values()]
    assert pool.plan.network.uuid in [row["uuid"] for row in api.network.get_all_records().values()]
    assert "Tiny guest" in [row["name_label"] for row in api.VM.get_all_records().values() if row["is_a_template"]]

    vm = client.provisioned(api, "main job")
    assert api.VM.get_is_a_template(vm) is False
    vdi, vbd = client.disk(api, vm)
    vif = client.interface(api, vm)
    states = client.PowerStates(api, vm)
    states.wait_for("Halted")

    api.VM.start(vm, False, False)
    assert api.VM.get_power_state(vm) == "Running"
    states.wait_for("Running")
    assert api.VBD.get_currently_attached(vbd) is True
    assert api.VIF.get_currently_attached(vif) is True
    assert api.host.get_uuid(api.VM.get_resident_on(vm))
    assert "login:" in client.read_console(session, vm, "login:")

    api.VM.clean_shutdown(vm)
    states.wait_for("Halted")
    assert api.VM.get_resident_on(vm) == "OpaqueRef:NULL"
    assert api.VBD.get_currently_attached(vbd) is False
    assert api.VM.get_consoles(vm) == []

    api.VM.start(vm, False, False)
    before = int(api.VM.get_domid(vm))
    api.VM.hard_reboot(vm)
    assert api.VM.get_power_state(vm) == "Running"
    assert int(api.VM.get_domid(vm)) != before
    api.VM.pause(vm)
    states.wait_for("Paused")
    api.VM.unpause(vm)
    states.wait_for("Running")
    api.VM.hard_shutdown(vm)
    states.wait_for("Halted")

    api.VM.destroy(vm)
    api.VDI.destroy(vdi)
    with pytest.raises(XenAPI.Failure, match="HANDLE_INVALID"):
        api.VM.get_record(vm)
    with pytest.raises(XenAPI.Failure, match="HANDLE_INVALID"):
        api.VBD.get_record(vbd)
    assert api.task.get_all_records() == {}


def test_a_guest_that_is_asked_to_reboot_comes_up_again_where_it_was(session: Any) -> None:
    api = session.xenapi
    with client.temporary_vm(api, "reboots", with_disk=True) as vm:
        api.VM.start(vm, False, False)
        client.read_console(session, vm, "login:")
        host, domid = api.VM.get_resident_on(vm), int(api.VM.get_domid(vm))
        api.VM.clean_reboot(vm)
        assert api.VM.get_power_state(vm) == "Running"
        assert api.VM.get_resident_on(vm) == host
        assert int(api.VM.get_domid(vm)) != domid
        assert "login:" in client.read_console(session, vm, "login:")


def test_a_vm_starts_on_each_of_the_hosts(session: Any) -> None:
    api = session.xenapi
    with client.temporary_vm(api, "everywhere", with_disk=True) as vm:
        client.interface(api, vm)
        for host in api.host.get_all():
            api.VM.start_on(vm, host, False, False)
            assert api.VM.get_resident_on(vm) == host
            assert vm in api.host.get_resident_VMs(host)
            api.VM.hard_shutdown(vm)
            assert vm not in api.host.get_resident_VMs(host)


def test_a_member_names_the_coordinator(pool: PoolUnderTest, session: Any) -> None:
    coordinator = pool.hosts["host1"]
    for name in ("host2", "host3"):
        member = XenAPI.Session(pool.host_url(name))
        with pytest.raises(XenAPI.Failure) as caught:
            member.login_with_password("root", pool.password, "1.0", "tests")
        assert caught.value.details == ["HOST_IS_SLAVE", coordinator]
        raw = XenAPI.Session(pool.host_url(name))
        raw._session = session._session
        with pytest.raises(XenAPI.Failure) as caught:
            raw.xenapi.VM.get_all()
        assert caught.value.details == ["HOST_IS_SLAVE", coordinator]


def test_what_a_vm_allows_follows_its_state(session: Any) -> None:
    api = session.xenapi
    with client.temporary_vm(api, "allowed") as vm:
        assert "start" in api.VM.get_allowed_operations(vm)
        api.VM.start(vm, False, False)
        running = api.VM.get_allowed_operations(vm)
        assert {"hard_shutdown", "hard_reboot", "pause"} <= set(running)
        assert "start" not in running
        with pytest.raises(XenAPI.Failure) as caught:
            api.VM.start(vm, False, False)
        assert caught.value.details == ["VM_BAD_POWER_STATE", vm, "halted", "running"]
        with pytest.raises(XenAPI.Failure, match="VM_BAD_POWER_STATE"):
            api.VM.destroy(vm)


def test_the_script_of_the_documentation_does_what_it_says(simulator_pool: PoolUnderTest) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "first_vm.py")],
        env={**os.environ, **simulator_pool.env},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "event: add Running" in done.stdout
    assert "login:" in done.stdout
    assert done.stdout.splitlines()[-1] == "event: add Halted"
