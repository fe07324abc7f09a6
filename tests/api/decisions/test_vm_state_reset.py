from __future__ import annotations

from services.api.decisions import (
    vm_state_reset,
)
from tests.api.decisions.sample import Sample

NULL = "OpaqueRef:NULL"


def running() -> Sample:
    pool = Sample()
    pool.vm(
        state="Running",
        resident_on="host",
        scheduled_to_be_resident_on="host2",
        requires_reboot=True,
        current_operations={"t": "clean_shutdown"},
        pending_guidances=["restart_vm", "reboot_host"],
    )
    pool.add("PCI", "pci", attached_VMs=["vm"])
    pool.sr()
    pool.vdi()
    pool.vbd(currently_attached=True, reserved=True, current_operations={"t": "unplug"})
    pool.add("network", "network")
    pool.vif(currently_attached=True, reserved_pci="pci")
    return pool


def test_a_halted_vm_holds_nothing() -> None:
    pool = running()
    pool.make(vm_state_reset.force_state_reset(pool.rows, "vm", "Halted"))
    vm = pool.row("VM", "vm")
    assert (vm["power_state"], vm["resident_on"], vm["scheduled_to_be_resident_on"]) == ("Halted", NULL, NULL)
    assert (vm["domid"], vm["requires_reboot"], vm["current_operations"]) == (-1, False, {})
    assert (vm["pending_guidances"], vm["attached_PCIs"]) == (["reboot_host"], [])
    assert pool.row("PCI", "pci")["attached_VMs"] == []
    vbd, vif_row = pool.row("VBD", "vbd"), pool.row("VIF", "vif")
    assert (vbd["currently_attached"], vbd["reserved"], vbd["current_operations"]) == (False, False, {})
    assert (vif_row["currently_attached"], vif_row["reserved_pci"]) == (False, NULL)


def test_a_suspended_vm_keeps_its_devices_but_is_nowhere() -> None:
    pool = running()
    pool.make(vm_state_reset.force_state_reset(pool.rows, "vm", "Suspended", keep_operations=True))
    vm = pool.row("VM", "vm")
    assert (vm["resident_on"], vm["domid"], vm["requires_reboot"]) == (NULL, -1, True)
    assert vm["current_operations"] == {"t": "clean_shutdown"}
    assert pool.row("VBD", "vbd")["currently_attached"]


def test_during_a_checkpoint_the_suspended_vm_stays_where_it_is() -> None:
    pool = running()
    pool.make(vm_state_reset.force_state_reset(pool.rows, "vm", "Suspended", checkpointing=True))
    assert pool.row("VM", "vm")["resident_on"] == "host"
