"""Commands that work on the objects their arguments select: `vm=web01`, `uuid=`, `host=`, any `field=value`."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.cli.records import RECORDS
from services.cli.server.command import Call, Selector
from services.cli.server.failures import CommandError, PartialFailure, UsageError
from services.cli.server.objects import Record, Row
from services.cli.server.query import Filter, rows
from services.cli.server.values import integer
from shared.errors import ApiError

Result = TypeVar("Result")
Operation = Callable[[Row], Awaitable[Result]]

LEAST_PRIORITY = "5"
"""Messages of a smaller number are shown after an operation on a VM."""

log = logging.getLogger("cli")

_NAMES: dict[str, tuple[str, ...]] = {
    "vm": ("uuid", "name_label"),
    "host": ("uuid", "hostname", "name_label"),
    "sr": ("uuid", "name_label"),
}
"""Attributes that `vm=`, `host=` and `sr=` match."""
_PLURAL = {"vm": "VMs", "host": "hosts", "sr": "hosts"}
_SEVERAL = {"vm": ("matches VMs", "VM"), "host": ("matching hosts", "host"), "sr": ("matching SRs", "SR")}


async def selected(call: Call, selector: Selector) -> list[Row]:
    """The objects that all the command's arguments but its own select; without any, all there are."""
    filters: list[Filter] = []
    named: list[str] = []
    for key, wanted in call.params.besides(call.command.own):
        if key == selector.kind:
            named.append(wanted)
        else:
            filters.append((key, wanted))
    found = await rows(call.objects, RECORDS[selector.kind], [*_scope(selector), *filters])
    return [row for row in found if all(_is_named(row.record, selector.kind, wanted) for wanted in named)]


def _scope(selector: Selector) -> list[Filter]:
    if selector.kind != "vm":
        return []
    hidden = [] if selector.templates else [("is-a-template", "false")]
    return hidden if selector.control_domains else [*hidden, ("is-control-domain", "false")]


def _is_named(record: Record, kind: str, wanted: str) -> bool:
    return any(record[attribute] == wanted for attribute in _NAMES[kind])


async def one(call: Call, selector: Selector) -> Row:
    """Exactly one object. Raises `CommandError` for none or several."""
    found = await selected(call, selector)
    if len(found) > 1:
        raise _ambiguous(selector, False)
    if not found:
        raise CommandError(f"No matching {_PLURAL[selector.kind]} found")
    return found[0]


def _ambiguous(selector: Selector, many: bool) -> CommandError:
    """`many`: the command could work on all of them."""
    found, one_of_them = _SEVERAL[selector.kind]
    if many:
        return CommandError(f"Multiple {found} found. --multiple required to complete the operation")
    return CommandError(f"Multiple {found} found. Operation can only be performed on one {one_of_them} at a time")


async def on_each(call: Call, operation: Operation[Result]) -> list[Result]:
    """Runs the operation on what the command's selector finds; last results first.

    One match: errors are raised as they are. Several need `--multiple`: all are tried, failures raised together.
    """
    selector = call.command.selector
    if selector is None:
        raise TypeError(f"{call.command.name} selects nothing")
    found = await selected(call, selector)
    if not found:
        raise CommandError(f"No matching {_PLURAL[selector.kind]} found")
    several = selector.implied or (selector.many and call.params.flag("multiple"))
    if len(found) > 1 and not several:
        raise _ambiguous(selector, selector.many)
    if selector.kind == "vm":
        operation = _with_messages(call, operation)
    if len(found) == 1:
        return [await operation(found[0])]
    results: list[Result] = []
    failures: list[tuple[str, ApiError | CommandError]] = []
    for row in found:
        try:
            results.insert(0, await operation(row))
        except (ApiError, CommandError) as error:
            failures.insert(0, (row.uuid, error))
    if failures:
        raise PartialFailure(failures)
    return results


def _with_messages(call: Call, operation: Operation[Result]) -> Operation[Result]:
    """Tells afterwards which important messages about the VM came up meanwhile."""
    text = call.params.get("message-priority", LEAST_PRIORITY)
    try:
        least = integer("message-priority", text)
    except CommandError as error:
        raise UsageError(str(error)) from error

    async def run(vm: Row) -> Result:
        since = time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime())
        result = await operation(vm)
        await _tell_messages(call, vm, since, least)
        return result

    return run


async def _tell_messages(call: Call, vm: Row, since: str, least: int) -> None:
    try:
        found: dict[str, Record] = await call.api.call("message.get", "VM", vm.uuid, since)
    except ApiError as error:
        # the operation itself has succeeded (and may have been to destroy the VM)
        log.warning("cannot read the messages of VM %s: %s", vm.uuid, error)
        return
    for record in found.values():
        if record["priority"] < least:
            text = f"Message: time={record['timestamp']} priority={record['priority']} name='{record['name']}'\n"
            await call.printer.stderr(text)
