"""GPUs, their groups and the virtual GPUs on them: rows, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.db import Create, Update
from tests.api.harness import Client, Pool

NOWHERE = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"
NULL = "OpaqueRef:NULL"


class Cards:
    """Two GPUs of one model on the first host, in a group that takes two kinds of virtual GPUs, four small or two
    large on each.
    """

    def __init__(self, pool: Pool, group: str) -> None:
        self.pool, self.group = pool, group
        self.pgpus = ["OpaqueRef:pgpu0", "OpaqueRef:pgpu1"]
        self.small, self.large = "OpaqueRef:small", "OpaqueRef:large"

    async def install(self) -> Cards:
        host = self.pool.host_ref(0)
        kind: dict[str, Any] = {"implementation": "nvidia", "vendor_name": "v"}
        both = [self.small, self.large]
        await self.pool.write(
            Create(cls="VGPU_type", ref=self.small, fields={**kind, "size": 262144, "compatible_types_on_pgpu": both}),
            Create(cls="VGPU_type", ref=self.large, fields={**kind, "size": 524288, "compatible_types_on_pgpu": both}),
            *(_card(host, number, ref, both) for number, ref in enumerate(self.pgpus)),
            *(_function(host, number) for number in range(2)),
        )
        return self

    async def place(self, vgpu: str, pgpu: str) -> None:
        await self.pool.write(Update(cls="VGPU", ref=vgpu, fields={"resident_on": pgpu}))


def _card(host: str, number: int, ref: str, types: list[str]) -> Create:
    fields = {"PCI": f"OpaqueRef:pci{number}", "host": host, "supported_VGPU_types": types, "enabled_VGPU_types": types}
    return Create(cls="PGPU", ref=ref, fields={**fields, "GPU_group": NULL})


def _function(host: str, number: int) -> Create:
    fields = {"host": host, "vendor_id": "10de", "device_id": "1111", "pci_id": f"0000:0{number}:00.0"}
    return Create(cls="PCI", ref=f"OpaqueRef:pci{number}", fields=fields)


@pytest.fixture
async def cards(pool: Pool, client: Client) -> Cards:
    group = await client.call("GPU_group.create", "gpus", "", {})
    installed = await Cards(pool, group).install()
    for pgpu in installed.pgpus:
        await client.call("PGPU.set_GPU_group", pgpu, group)
    return installed


async def test_a_group_has_the_model_and_the_types_of_its_gpus(pool: Pool, client: Client, cards: Cards) -> None:
    row = pool.row("GPU_group", cards.group)
    assert row["GPU_types"] == ["10de/1111"]
    assert set(row["supported_VGPU_types"]) == set(row["enabled_VGPU_types"]) == {cards.small, cards.large}
    await client.call("PGPU.remove_enabled_VGPU_types", cards.pgpus[0], cards.large)
    assert set(pool.row("GPU_group", cards.group)["enabled_VGPU_types"]) == {cards.small, cards.large}
    await client.call("PGPU.set_enabled_VGPU_types", cards.pgpus[1], [cards.small])
    assert pool.row("GPU_group", cards.group)["enabled_VGPU_types"] == [cards.small]
    await client.call("PGPU.add_enabled_VGPU_types", cards.pgpus[1], cards.large)
    assert set(pool.row("GPU_group", cards.group)["enabled_VGPU_types"]) == {cards.small, cards.large}


async def test_types_that_a_gpu_does_not_support_are_not_enabled(client: Client, cards: Cards) -> None:
    refusal = ["VGPU_TYPE_NOT_SUPPORTED", NOWHERE, cards.small, cards.large]
    assert await client.refusal("PGPU.add_enabled_VGPU_types", cards.pgpus[0], NOWHERE) == refusal
    assert await client.refusal("PGPU.set_enabled_VGPU_types", cards.pgpus[0], [NOWHERE]) == refusal


async def test_room_is_what_is_left_of_a_gpu(pool: Pool, client: Client, cards: Cards) -> None:
    assert await client.call("GPU_group.get_remaining_capacity", cards.group, cards.small) == 8
    vm = await pool.vm(client)
    vgpu = await client.call("VGPU.create", vm, cards.group, "0", {}, cards.large)
    await cards.place(vgpu, cards.pgpus[0])
    assert await client.call("PGPU.get_remaining_capacity", cards.pgpus[0], cards.small) == 2
    assert await client.call("GPU_group.get_remaining_capacity", cards.group, cards.large) == 3
    assert await client.call("PGPU.get_remaining_capacity", cards.pgpus[0], NOWHERE) == 0


async def test_what_a_vm_uses_on_a_gpu_stays_as_it_is(pool: Pool, client: Client, cards: Cards) -> None:
    vm = await pool.vm(client)
    vgpu = await client.call("VGPU.create", vm, cards.group, "0", {}, cards.large)
    await cards.place(vgpu, cards.pgpus[0])
    assert await client.refusal("PGPU.remove_enabled_VGPU_types", cards.pgpus[0], cards.large) == [
        "PGPU_IN_USE_BY_VM",
        vm,
    ]
    other = await client.call("GPU_group.create", "other", "", {})
    assert await client.refusal("PGPU.set_GPU_group", cards.pgpus[0], other) == ["PGPU_IN_USE_BY_VM", vm]
    await client.call("PGPU.set_GPU_group", cards.pgpus[1], other)
    assert pool.row("GPU_group", other)["PGPUs"] == [cards.pgpus[1]]
    assert await client.call("GPU_group.get_remaining_capacity", cards.group, cards.small) == 2


async def test_a_group_takes_one_model_of_gpu_only(pool: Pool, client: Client, cards: Cards) -> None:
    await pool.write(Update(cls="PCI", ref="OpaqueRef:pci1", fields={"device_id": "2222"}))
    other = await client.call("GPU_group.create", "other", "", {})
    await client.call("PGPU.set_GPU_group", cards.pgpus[1], other)
    assert await client.refusal("PGPU.set_GPU_group", cards.pgpus[0], other) == [
        "PGPU_NOT_COMPATIBLE_WITH_GPU_GROUP",
        "10de/1111",
        "[10de/2222]",
    ]


async def test_a_group_goes_with_its_virtual_gpus_but_not_with_gpus(pool: Pool, client: Client, cards: Cards) -> None:
    refusal = await client.refusal("GPU_group.destroy", cards.group)
    assert (refusal[0], set(refusal[1:])) == ("GPU_GROUP_CONTAINS_PGPU", set(cards.pgpus))
    vm = await pool.vm(client)
    empty = await client.call("GPU_group.create", "empty", "", {})
    vgpu = await client.call("VGPU.create", vm, empty, "0", {})
    await pool.write(Update(cls="VGPU", ref=vgpu, fields={"currently_attached": True}))
    assert await client.refusal("GPU_group.destroy", empty) == ["GPU_GROUP_CONTAINS_VGPU", vgpu]
    await pool.write(Update(cls="VGPU", ref=vgpu, fields={"currently_attached": False}))
    await client.call("GPU_group.destroy", empty)
    assert pool.row("VGPU", vgpu) is None


async def test_virtual_gpus_are_numbered(pool: Pool, client: Client, cards: Cards) -> None:
    vm = await pool.vm(client)
    await pool.write(Update(cls="VGPU_type", ref=cards.small, fields={"compatible_types_in_vm": [cards.small]}))

    async def refusal(device: str) -> list[str]:
        return await client.refusal("VGPU.create", vm, cards.group, device, {}, cards.small)

    first = await client.call("VGPU.create", vm, cards.group, "0", {}, cards.small)
    second = await client.call("VGPU.create", vm, cards.group, "0", {}, cards.small)
    assert [pool.row("VGPU", ref)["device"] for ref in (first, second)] == ["0", "1"]
    assert await refusal("1") == ["DEVICE_ALREADY_EXISTS", "1"]
    assert await refusal("21") == ["INVALID_DEVICE", "21"]
    assert await refusal("one") == ["INVALID_DEVICE", "one"]


async def test_without_a_type_a_virtual_gpu_is_a_whole_gpu(pool: Pool, client: Client, cards: Cards) -> None:
    vm = await pool.vm(client)
    vgpu = await client.call("VGPU.create", vm, cards.group)
    kind = pool.row("VGPU", vgpu)["type"]
    assert pool.row("VGPU_type", kind)["implementation"] == "passthrough"
    assert await client.refusal("VGPU.create", vm, cards.group) == ["VGPU_TYPE_NOT_COMPATIBLE", kind]
    other = await pool.vm(client, "other")
    again = await client.call("VGPU.create", other, cards.group)
    assert pool.row("VGPU", again)["type"] == kind


async def test_virtual_gpus_come_and_go_while_their_vm_is_halted(pool: Pool, client: Client, cards: Cards) -> None:
    vm = await pool.vm(client)
    assert await client.refusal("VGPU.create", NOWHERE, cards.group) == ["HANDLE_INVALID", "VM", NOWHERE]
    assert await client.refusal("VGPU.create", vm, cards.group, "0", {}, NOWHERE) == ["INVALID_VALUE", "type", NOWHERE]
    vgpu = await client.call("VGPU.create", vm, cards.group)
    await pool.write(Update(cls="VM", ref=vm, fields={"power_state": "Running"}))
    assert await client.refusal("VGPU.create", vm, cards.group) == ["VM_BAD_POWER_STATE", vm, "halted", "running"]
    assert (await client.refusal("VGPU.destroy", vgpu))[0] == "OPERATION_NOT_ALLOWED"
    await pool.write(Update(cls="VM", ref=vm, fields={"power_state": "Halted"}))
    await client.call("VGPU.destroy", vgpu)
    assert pool.row("VM", vm)["VGPUs"] == []
