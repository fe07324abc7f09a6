"""Calls whose arguments make no sense: an error of the API's own, and nothing changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import XenAPI

from shared.datamodel import model
from shared.datamodel.schema import Message
from shared.datamodel.types import RefType
from tests.e2e import client as real
from tests.support import load
from tests.support.arguments import UNKNOWN, WRONG, arguments, refs
from tests.support.jsonrpc import Client, Failure
from tests.support.load import PYTHON
from tests.support.pool import PoolUnderTest
from tests.support.soundness import files

pytestmark = [pytest.mark.pool, pytest.mark.timeout(120)]

CLASSES = ("VM", "VDI", "VBD", "VIF", "SR", "PBD", "host", "network")
OTHERS_FIRST = {
    "SR.set_physical_size": "PERMISSION_DENIED",
    "SR.set_physical_utilisation": "PERMISSION_DENIED",
    "SR.set_virtual_allocation": "PERMISSION_DENIED",
    "VDI.pool_migrate": "VDI_NEEDS_VM_FOR_MIGRATE",
    "VIF.add_ipv4_allowed": "INVALID_IP_ADDRESS_SPECIFIED",
    "VIF.add_ipv6_allowed": "INVALID_IP_ADDRESS_SPECIFIED",
    "VM.set_ha_restart_priority": "INVALID_VALUE",
    "host.get_uncooperative_resident_VMs": "",
    "host.set_uefi_certificates": "OPERATION_NOT_ALLOWED",
}
"""What is said before anybody looks at the object: of another argument, of who calls, of VMs that there never are."""

SAMPLE = (
    "VM.create",
    "VM.clone",
    "VM.provision",
    "VM.start",
    "VM.start_on",
    "VM.hard_shutdown",
    "VM.set_memory_limits",
    "VM.set_VCPUs_max",
    "VM.set_other_config",
    "VM.add_to_other_config",
    "VM.get_by_uuid",
    "VM.get_all_records_where",
    "VM.migrate_send",
    "VDI.create",
    "VDI.resize",
    "VDI.copy",
    "VDI.introduce",
    "VBD.create",
    "VBD.insert",
    "VIF.create",
    "VIF.add_ipv4_allowed",
    "SR.create",
    "SR.introduce",
    "PBD.create",
    "network.create",
    "host.set_other_config",
    "host.call_plugin",
    "task.create",
    "message.get",
    "pool.set_other_config",
)
"""One of each shape: records, maps, sets, numbers, enums, references, free text."""


@pytest.fixture
async def client(simulator_pool: PoolUnderTest) -> AsyncIterator[Client]:
    async with load.clean(simulator_pool) as made:
        yield made
    assert files(simulator_pool) == set()


async def answer(client: Client, method: str, *params: Any) -> list[str]:
    """The error; [] when there is none. That the connection ends, or nothing comes, is an error of the test."""
    try:
        await client.call(method, *params)
    except Failure as failure:
        return failure.details
    return []


def about_an_object(message: Message) -> bool:
    first = message.params[0].type if message.params else None
    return message.session and isinstance(first, RefType) and first.cls == message.cls


def is_right(message: Message, details: list[str]) -> bool:
    """Whether that is the answer to a call about an object that does not exist."""
    code, *rest = details or [""]
    if message.removed:
        return code == "MESSAGE_REMOVED"
    if message.pool_internal:
        return code == "INTERNAL_ERROR" and rest[0].startswith("Internal API")
    if code == "HANDLE_INVALID":
        return rest[0] in refs(message) and rest[1] == UNKNOWN
    if code == "HOST_OFFLINE":
        return "host" in refs(message) and rest == [UNKNOWN]
    return OTHERS_FIRST.get(message.wire_name) == code


@pytest.mark.parametrize("cls", CLASSES)
async def test_an_object_that_does_not_exist_is_an_invalid_handle(client: Client, cls: str) -> None:
    messages = [message for message in model.messages.values() if message.cls == cls and about_an_object(message)]
    assert len(messages) > 10
    answers = {message: await answer(client, message.wire_name, *arguments(message)) for message in messages}
    wrong = {message.wire_name: found for message, found in answers.items() if not is_right(message, found)}
    assert wrong == {}


@pytest.mark.parametrize("name", SAMPLE)
async def test_values_of_any_kind_get_an_answer_in_the_apis_words(client: Client, name: str) -> None:
    message = model.message(name)
    assert message is not None
    for number in range(len(message.params)):
        for value in WRONG:
            given = arguments(message)
            given[number] = value
            details = await answer(client, name, *given)
            assert not PYTHON.search(" ".join(details)), f"{message.params[number].name}={value!r:.80}: {details}"


@pytest.mark.parametrize("name", SAMPLE)
async def test_values_of_any_kind_get_an_answer_over_xml_too(
    simulator_pool: PoolUnderTest, client: Client, name: str
) -> None:
    message = model.message(name)
    assert message is not None
    unclear = [
        details
        for details in await asyncio.to_thread(answers_over_xml, simulator_pool, message)
        if PYTHON.search(" ".join(details))
    ]
    assert unclear == []


def answers_over_xml(pool: PoolUnderTest, message: Message) -> list[list[str]]:
    """The errors to every kind of value in every place, by the real client."""
    found = []
    with real.logged_in(pool) as session:
        method = getattr(getattr(session.xenapi, message.cls), message.name)
        for number in range(len(message.params)):
            for value in (True, 1.5, "text", "", ["text"], {"key": [1.5]}, "9" * 5000, "x" * 100_000):
                given = [str(one) if type(one) is int else one for one in arguments(message)]
                given[number] = value
                found.append(failure_of(method, given))
    return found


def failure_of(method: Callable[..., Any], given: list[Any]) -> list[str]:
    try:
        method(*given)
    except XenAPI.Failure as failure:
        return list(failure.details)
    return []


async def test_the_number_of_arguments_is_checked(client: Client) -> None:
    code = "MESSAGE_PARAMETER_COUNT_MISMATCH"
    assert await answer(client, "VM.clone") == [code, "VM.clone", "2", "0"]
    assert await answer(client, "VM.clone", "a", "b", "c") == [code, "VM.clone", "2", "3"]
    assert (await answer(client, "VM.brew", "a"))[0] == "MESSAGE_METHOD_UNKNOWN"
    assert (await answer(client, "__class__"))[0] == "MESSAGE_METHOD_UNKNOWN"


TEXTS = {
    "control": "\x00\x01\x08",
    "no characters": "\ufffe\uffff",
    "marks": "\u202e\u0301",
    "outside the first plane": "😀" * 1000,
    "markup": "]]>&<!--",
    "long": "x" * 90_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
async def test_names_come_back_as_text_that_every_client_can_read(
    simulator_pool: PoolUnderTest, client: Client, text: str
) -> None:
    """Of what XML cannot say, nothing is kept."""
    kept = "" if text in (TEXTS["control"], TEXTS["no characters"]) else text
    task = await client.call("task.create", text, text)
    await client.call("task.add_to_other_config", task, f"k{text}", text)
    record = await client.call("task.get_record", task)
    assert record["name_label"] == kept
    assert record["other_config"][f"k{kept}"] == kept
    with real.logged_in(simulator_pool) as session:
        assert session.xenapi.task.get_all_records()[task]["status"] == "pending"  # the XML is well-formed


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"virtual_size": -1}, "INVALID_VALUE"),
        ({"virtual_size": 0}, "SR_BACKEND_FAILURE_79"),
        ({"virtual_size": 2**63 - 1}, "SR_BACKEND_FAILURE_79"),
        ({"virtual_size": 1 << 62}, "SR_BACKEND_FAILURE_79"),
        ({"virtual_size": "12a"}, "INTERNAL_ERROR"),
        ({"virtual_size": 1.5}, "INTERNAL_ERROR"),
        ({"type": "nonsense"}, "INTERNAL_ERROR"),
        ({"SR": "OpaqueRef:NULL"}, "HANDLE_INVALID"),
        ({"SR": UNKNOWN}, "HANDLE_INVALID"),
    ],
)
async def test_a_disk_that_cannot_be_is_refused(client: Client, fields: dict[str, Any], code: str) -> None:
    sensible = {"name_label": "disk", "SR": await load.default_sr(client), "virtual_size": 1 << 20, "type": "user"}
    given = {**sensible, "sharable": False, "read_only": False, "other_config": {}, **fields}
    assert (await answer(client, "VDI.create", given))[0] == code
    assert await client.call("VDI.get_all") == []


async def test_memory_and_cpus_at_the_limits_of_the_type(client: Client) -> None:
    vm = await load.machine(client, "limits", await load.default_sr(client))
    most = 2**63 - 1
    assert await answer(client, "VM.set_VCPUs_max", vm, most) == []
    assert await answer(client, "VM.set_memory_limits", vm, most, most, most, most) == []
    assert await answer(client, "VM.start", vm, False, False) == ["NO_HOSTS_AVAILABLE"]
    assert (await answer(client, "VM.set_memory_limits", vm, 3, 2, 1, 0))[0] == "MEMORY_CONSTRAINT_VIOLATION_ORDER"
    assert (await answer(client, "VM.set_VCPUs_max", vm, 0))[0] == "INVALID_VALUE"
    vdi = await client.call("VBD.get_VDI", (await client.call("VM.get_VBDs", vm))[0])
    for size in (-1, 1, most):
        assert (await answer(client, "VDI.resize", vdi, size))[0] == "SR_BACKEND_FAILURE_79"
    assert await client.call("VDI.get_virtual_size", vdi) == 8 << 20
    await client.call("VM.set_VCPUs_max", vm, 1)
    await client.call("VM.set_memory_limits", vm, *[128 << 20] * 4)
    assert await answer(client, "VM.start", vm, False, False) == []


ENTITY = "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>"
DISK = "<disk device='0' size='1048576' sr='{sr}' bootable='false' type='system'/>"


HUGE = str(1 << 59)
BAD_DISKS = {
    "no XML": ("nonsense", "INVALID_VALUE"),
    "half of it": ("<provision>", "INVALID_VALUE"),
    "deep": ("<a>" * 50_000, "INVALID_VALUE"),
    "a file as entity": (f"{ENTITY}<provision><disk device='&e;'/></provision>", "INVALID_VALUE"),
    "a negative size": (f"<provision>{DISK.replace('1048576', '-5')}</provision>", "INVALID_VALUE"),
    "a size of many digits": (f"<provision>{DISK.replace('1048576', '9' * 5000)}</provision>", "INVALID_VALUE"),
    "too large": (f"<provision>{DISK.replace('1048576', HUGE)}</provision>", "SR_BACKEND_FAILURE_79"),
    "good, then too large": (f"<provision>{DISK}{DISK.replace('1048576', HUGE)}</provision>", "SR_BACKEND_FAILURE_79"),
    "good, then no SR": (f"<provision>{DISK}{DISK.replace('{sr}', 'unknown')}</provision>", "UUID_INVALID"),
}


@pytest.mark.parametrize(("disks", "code"), BAD_DISKS.values(), ids=list(BAD_DISKS))
async def test_a_template_whose_disks_cannot_be_made_stays_a_template_without_disks(
    client: Client, disks: str, code: str
) -> None:
    sr = await client.call("SR.get_uuid", await load.default_sr(client))
    template = (await client.call("VM.get_by_name_label", "Tiny guest"))[0]
    vm = await client.call("VM.clone", template, "of a bad template")
    await client.call("VM.remove_from_other_config", vm, "default_template")
    await client.call("VM.add_to_other_config", vm, "disks", disks.replace("{sr}", sr))
    assert (await answer(client, "VM.provision", vm))[0] == code
    record = await client.call("VM.get_record", vm)
    assert (record["is_a_template"], record["VBDs"], record["current_operations"]) == (True, [], {})
    assert await client.call("VDI.get_all") == []
    await client.call("VM.set_is_a_template", vm, False)


async def test_a_template_without_disks_makes_a_vm_without_disks(client: Client) -> None:
    template = (await client.call("VM.get_by_name_label", "Other install media"))[0]
    vm = await client.call("VM.clone", template, "diskless")
    await client.call("VM.provision", vm)
    assert (await answer(client, "VM.provision", vm))[0] == "PROVISION_ONLY_ALLOWED_ON_TEMPLATE"
    assert await answer(client, "VM.start", vm, False, False) == []
