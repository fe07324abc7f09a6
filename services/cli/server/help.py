"""`xe help`: what there is, and one command in detail. Scripts and shell completion read this output too."""

from __future__ import annotations

from collections.abc import Iterable

from services.cli.server.command import Call, Command, Flag
from services.cli.server.printer import Printer

_NOT_COMMANDS = frozenset({"server", "username", "password", "port", "minimal", "all"})
_LINE = 74
_HEADER = """\
Usage: xe <command> [-s <server>] [-p <port>] [-u <user>] [-pw <password> | -pwf <password file>] [<parameters>]

All commands: xe help --all
One command in detail: xe help <command>
"""
_SELECTOR_HELP = (
    "Works on the {things} that the other arguments select: {kind}=<uuid or name>, uuid=<uuid>, or any "
    "<field>=<value> of {kind}-list. --multiple: on several."
)
_THINGS = {"vm": "VMs", "host": "hosts", "sr": "SRs"}


async def show_help(call: Call) -> None:
    """The `help` command."""
    asked = [key for key, _ in call.params if key not in _NOT_COMMANDS]
    if asked:
        for name in asked:
            await _detail(call.printer, call.commands, name)
        return
    everything = call.params.flag("all")
    shown = [
        each.name
        for each in call.commands.values()
        if Flag.HIDDEN not in each.flags and (everything or Flag.STANDARD in each.flags)
    ]
    if call.printer.minimal:
        await call.printer.items(sorted(shown))
    elif everything:
        await call.printer.items(["A full list of commands is:", "", *_groups(shown)])
    else:
        await call.printer.items([_HEADER, "The commands used most:", wrapped(sorted(shown))])


def _groups(names: Iterable[str]) -> list[str]:
    hosts = sorted(name for name in names if name.startswith("host-"))
    vms = sorted(name for name in names if name.startswith("vm-"))
    others = sorted(set(names) - {*hosts, *vms})
    return [wrapped(hosts), "    ", wrapped(vms), "    ", wrapped(others)]


def wrapped(names: Iterable[str]) -> str:
    """Names between commas; a line starts with four blanks, and has no comma at its end."""
    lines = ["    "]
    for name in names:
        fresh = lines[-1] == "    "
        if not fresh and len(lines[-1]) + len(name) > _LINE:
            lines.append(f"    {name}")
        else:
            lines[-1] += name if fresh else f", {name}"
    return "\n".join(lines)


async def _detail(printer: Printer, commands: dict[str, Command], name: str) -> None:
    found = commands.get(name)
    if found is None:
        await printer.message(f"Unknown command '{name}'")
        return
    optional, text = list(found.optional), found.help
    if found.selector is not None:
        kind = found.selector.kind
        optional.append(f"<{kind}-selectors>")
        text = f"{text} {_SELECTOR_HELP.format(things=_THINGS[kind], kind=kind)}"
    if found.deprecated:
        text = f"{text} Deprecated: {found.deprecated}."
    await printer.table(
        [
            [
                ("command name        ", name),
                ("reqd params     ", ", ".join(found.required)),
                ("optional params ", ", ".join(optional)),
                ("description     ", text),
            ]
        ]
    )
