"""Errors of host services name objects as clients know them."""

from __future__ import annotations

import pytest

from services.api.host_errors import with_refs
from shared.contracts.db import Delta, RowCreated
from shared.errors import ApiError
from shared.store import Store

VM, HOST, SR, VDI, NET, VIF = (f"OpaqueRef:{name}" for name in ("vm", "host", "sr", "vdi", "net", "vif"))


@pytest.fixture
def store() -> Store:
    rows = [
        RowCreated(cls="VM", ref=VM, fields={"uuid": "vm-1"}),
        RowCreated(cls="host", ref=HOST, fields={"uuid": "host-1"}),
        RowCreated(cls="SR", ref=SR, fields={"uuid": "sr-1"}),
        RowCreated(cls="VDI", ref=VDI, fields={"uuid": "vdi-1", "location": "disk.qcow2", "SR": SR}),
        RowCreated(cls="network", ref=NET, fields={"uuid": "net-1", "bridge": "xenbr0"}),
        RowCreated(cls="VIF", ref=VIF, fields={"uuid": "vif-1", "VM": VM, "device": "0"}),
    ]
    store = Store()
    store.apply(Delta(term=1, generation=1, previous=0, changes=list(rows)))
    return store


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ApiError("HOST_OFFLINE", "host-1"), ["HOST_OFFLINE", HOST]),
        (ApiError("VM_BAD_POWER_STATE", "vm-1", "halted", "running"), ["VM_BAD_POWER_STATE", VM, "halted", "running"]),
        (ApiError("VDI_MISSING", "sr-1", "disk.qcow2"), ["VDI_MISSING", SR, VDI]),
        (ApiError("VDI_IN_USE", "vdi-1", "destroy"), ["VDI_IN_USE", VDI, "destroy"]),
        (ApiError("CANNOT_PLUG_VIF", "vm-1/0", "why"), ["CANNOT_PLUG_VIF", VIF, "why"]),
        (ApiError("UNIMPLEMENTED_IN_SM_BACKEND", "sr-1"), ["UNIMPLEMENTED_IN_SM_BACKEND", SR]),
        (ApiError("HOST_CANNOT_ATTACH_NETWORK", "host-1", "xenbr0"), ["HOST_CANNOT_ATTACH_NETWORK", HOST, NET]),
    ],
)
def test_objects_are_named_by_reference(store: Store, error: ApiError, expected: list[str]) -> None:
    assert with_refs(store, error).description == expected


@pytest.mark.parametrize(
    "error",
    [
        ApiError("HOST_OFFLINE", HOST),
        ApiError("HOST_OFFLINE", "nobody-knows"),
        ApiError("INTERNAL_ERROR", "host-1"),
        ApiError("UNIMPLEMENTED_IN_SM_BACKEND", "nfs"),
        ApiError("SR_BACKEND_FAILURE_47", "", "sr-1", ""),
        ApiError("NO_SUCH_CODE", "vm-1"),
    ],
)
def test_everything_else_stays_as_it_is(store: Store, error: ApiError) -> None:
    assert with_refs(store, error) is error
