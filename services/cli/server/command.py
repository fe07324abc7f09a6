"""How a command is declared, and what its handler gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.cli.server.failures import Catalogue, CommandError
from services.cli.server.objects import Objects
from services.cli.server.printer import Printer
from services.cli.server.syntax import Params
from services.cli.server.terminal import Terminal
from services.cli.server.xenapi import XenApi


class Flag(StrEnum):
    """STANDARD: in the short help. HIDDEN: in none. NEVERFORWARD: runs on the member it was sent to.

    WITH_FD: talks to the client beyond printing. LOCAL_SESSION: an emergency login, no coordinator needed.
    """

    STANDARD = "Standard"
    HIDDEN = "Hidden"
    NEVERFORWARD = "Neverforward"
    WITH_FD = "With_fd"
    LOCAL_SESSION = "local_session"
    GENERATED = "Generated"


@dataclass(frozen=True)
class Selector:
    """Which objects a command may work on, and among which it chooses by its arguments.

    `kind`: vm | host | sr. `many`: with `--multiple`. `implied`: as if that were always given.
    """

    kind: str
    control_domains: bool = False
    templates: bool = False
    many: bool = True
    implied: bool = False


VM = Selector("vm")
HOST = Selector("host")
SR = Selector("sr")


@dataclass
class Call:
    """One run of a command."""

    command: Command
    params: Params
    api: XenApi
    printer: Printer
    terminal: Terminal
    objects: Objects
    catalogue: Catalogue
    commands: dict[str, Command]

    async def ref(self, name: str, cls: str) -> str:
        """The object whose uuid the parameter gives. Raises UUID_INVALID."""
        return await self.objects.by_uuid(cls, self.params[name])

    async def optional_ref(self, name: str, cls: str) -> str | None:
        return await self.ref(name, cls) if name in self.params else None

    async def uuid(self, cls: str, ref: str) -> str:
        value: str = await self.api.call(f"{cls}.get_uuid", ref)
        return value

    async def print_uuid(self, cls: str, ref: str) -> None:
        await self.printer.items([await self.uuid(cls, ref)])


Handler = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True)
class Command:
    """`required`, `optional`: parameters; a trailing `:` marks the prefix of a map. `also`: undocumented ones.

    `run`: None if nobody has written it yet. `deprecated`: what to use instead.
    """

    name: str
    help: str
    run: Handler | None
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    flags: frozenset[Flag] = frozenset()
    selector: Selector | None = None
    also: tuple[str, ...] = ()
    deprecated: str = ""

    @property
    def own(self) -> tuple[str, ...]:
        """Parameters that are not selectors."""
        return (*self.required, *self.optional, *self.also)

    @property
    def local(self) -> bool:
        return Flag.LOCAL_SESSION in self.flags


def command(
    name: str,
    run: Handler | None,
    help: str,
    *,
    required: str = "",
    optional: str = "",
    flags: str = "",
    selector: Selector | None = None,
    also: str = "",
    deprecated: str = "",
) -> Command:
    """A row of the command table; names are separated by blanks."""
    return Command(
        name,
        help,
        run,
        tuple(required.split()),
        tuple(optional.split()),
        frozenset(Flag(flag) for flag in flags.split()),
        selector,
        tuple(also.split()),
        deprecated,
    )


def pending(
    name: str,
    *,
    required: str = "",
    optional: str = "",
    flags: str = "",
    selector: Selector | None = None,
    deprecated: str = "",
) -> Command:
    """A command that is known but does nothing yet: it says so and fails."""
    text = "Not implemented yet."
    return command(
        name, None, text, required=required, optional=optional, flags=flags, selector=selector, deprecated=deprecated
    )


def table(*groups: Sequence[Command]) -> dict[str, Command]:
    """The commands of all groups by name. Raises ValueError if one is declared twice."""
    found: dict[str, Command] = {}
    for group in groups:
        for each in group:
            if each.name in found:
                raise ValueError(f"the command {each.name} is declared twice")
            found[each.name] = each
    return found


async def unimplemented(call: Call) -> None:
    raise CommandError(f"The command '{call.command.name}' is not implemented yet")
