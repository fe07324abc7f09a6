from __future__ import annotations

from services.api.decisions import (
    vm_messages,
)


def test_messages_name_vm_and_hosts() -> None:
    vm = {"name_label": "web {1}", "uuid": "u"}
    host, other = {"name_label": "h1", "uuid": "hu"}, {"name_label": "h2", "uuid": "hv"}
    snapshot = {"name_label": "before", "uuid": "su"}
    begin = "VM 'web {1}' (uuid: u)"
    assert vm_messages.body("VM_STARTED", vm, host=host) == f"{begin} started on host: h1 (uuid: hu)"
    assert vm_messages.body("VM_SHUTDOWN", vm) == f"{begin} shutdown"
    assert vm_messages.body("VM_SHUTDOWN", vm, forcibly=True) == f"{begin} shutdown forcibly"
    assert vm_messages.body("VM_REBOOTED", vm) == f"{begin} rebooted cleanly"
    expected = f"{begin} migrated from host 'h2' (uuid: hv) to host 'h1' (uuid: hu)"
    assert vm_messages.body("VM_MIGRATED", vm, host=host, source=other) == expected
    assert vm_messages.body("VM_SNAPSHOTTED", vm, snapshot=snapshot) == f"{begin} snapshotted, snapshot name: before"
    expected = f"{begin} reverted to snapshot: before (uuid su)"
    assert vm_messages.body("VM_SNAPSHOT_REVERTED", vm, snapshot=snapshot) == expected
