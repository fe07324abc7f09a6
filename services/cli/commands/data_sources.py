"""What can be measured of hosts, VMs and SRs."""

from __future__ import annotations

from typing import Any

from services.cli.commands.vm_lifecycle import WITH_CONTROL_DOMAINS
from services.cli.server.command import HOST, SR, Call, Command, Selector, command
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each
from services.cli.server.simple import message


def _listing(prefix: str, cls: str, what: str, selector: Selector) -> Command:
    async def run(call: Call) -> None:
        async def listed(row: Row) -> None:
            sources = await call.api.call(f"{cls}.get_data_sources", row.ref)
            await call.printer.table([_lines(source) for source in sources])

        await on_each(call, listed)

    return command(f"{prefix}-data-source-list", run, f"What can be measured of {what}.", selector=selector)


def _lines(source: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("name_label", source["name_label"]),
        ("name_description", source["name_description"]),
        ("enabled", str(source["enabled"]).lower()),
        ("standard", str(source["standard"]).lower()),
        ("min", limit(source["min"])),
        ("max", limit(source["max"])),
        ("units", source["units"]),
    ]


def limit(value: float) -> str:
    """A whole number ends with its point: `0.`, `1.5`, `inf`."""
    text = f"{float(value):.12g}"
    return f"{text}." if text.lstrip("-").isdigit() else text


COMMANDS = (
    _listing("host", "host", "hosts", HOST),
    _listing("vm", "VM", "VMs", WITH_CONTROL_DOMAINS),
    _listing("sr", "SR", "SRs", SR),
    message("sr-data-source-record", "SR.record_data_source", "data-source", selector=SR),
    message("sr-data-source-query", "SR.query_data_source", "data-source", selector=SR),
    message("sr-data-source-forget", "SR.forget_data_source_archives", "data-source", selector=SR),
)
