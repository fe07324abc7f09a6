"""The pool's main job, with the XenAPI module from PyPI and no changes: the same on QEMU and on the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import XenAPI

from tests.e2e import client
from tests.support.pool import PoolUnderTest

pytestmark = pytest.mark.pool


@pytest.fixture(
    params=["simulator", pytest.param("qemu", marks=[pytest.mark.qemu, pytest.mark.timeout(400)])], scope="module"
)
def pool(request: pytest.FixtureRequest) -> PoolUnderTest:
    found: PoolUnderTest = request.getfixturevalue(f"{request.param}_pool")
    return found


@pytest.fixture
def session(pool: PoolUnderTest) -> Iterator[Any]:
    with client.logged_in(pool) as session:
        yield session


def test_a_vm_lives_from_template_to_destroy(session: Any) -> None:
    api = session.xenapi
    assert len(api.host.get_all()) == 3
    assert api.SR.get_all()
    assert api.network.get_all()
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


def test_a_vm_starts_on_each_of_the_hosts(session: Any) -> None:
    api = session.xenapi
    vm = client.provisioned(api, "everywhere")
    vdi, _ = client.disk(api, vm)
    client.interface(api, vm)
    try:
        for host in api.host.get_all():
            api.VM.start_on(vm, host, False, False)
            assert api.VM.get_resident_on(vm) == host
            api.VM.hard_shutdown(vm)
    finally:
        client.remove(api, vm, vdi)


def test_an_asynchronous_start_is_a_task_that_succeeds(session: Any) -> None:
    api = session.xenapi
    vm = client.provisioned(api, "async")
    try:
        task = session.xenapi.Async.VM.start(vm, True, False)
        token = ""
        while api.task.get_status(task) == "pending":
            token = getattr(api.event, "from")([f"task/{task}"], token, 10.0)["token"]
        assert api.task.get_error_info(task) == []
        assert (api.task.get_status(task), float(api.task.get_progress(task))) == ("success", 1.0)
        assert api.task.get_result(task) == "<value></value>"
        assert api.VM.get_power_state(vm) == "Paused"
        api.task.destroy(task)
    finally:
        client.remove(api, vm)


def test_a_member_names_the_coordinator(pool: PoolUnderTest, session: Any) -> None:
    coordinator = pool.hosts["host1"]
    for name in ("host2", "host3"):
        member = XenAPI.Session(pool.host_url(name))
        with pytest.raises(XenAPI.Failure) as caught:
            member.login_with_password("root", pool.password, "1.0", "tests")
        assert caught.value.details == ["HOST_IS_SLAVE", coordinator]
        raw = XenAPI.Session(pool.host_url(name))
        raw._session = session._session
        with pytest.raises(XenAPI.Failure, match="HOST_IS_SLAVE"):
            raw.xenapi.VM.get_all()


def test_what_a_vm_allows_follows_its_state(session: Any) -> None:
    api = session.xenapi
    vm = client.provisioned(api, "allowed")
    try:
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
    finally:
        client.remove(api, vm)
