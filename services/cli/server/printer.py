"""Output of a command: messages, lists and tables, in full or with `--minimal`."""

from __future__ import annotations

from collections.abc import Sequence

from services.cli.protocol import Print, PrintStderr
from services.cli.server.terminal import Terminal

Table = Sequence[Sequence[tuple[str, str]]]
"""Records of (label, value)."""


def layout(record: Sequence[tuple[str, str]]) -> str:
    """One record: labels right-aligned, the first left-aligned, a line each, and an empty line behind."""
    width = 4 + max((len(label.encode()) for label, _ in record), default=0)
    lines = []
    for at, (label, value) in enumerate(record):
        pad = " " * (width - len(label.encode()))
        lines.append(f"{label}{pad}: {value}" if at == 0 else f"{pad}{label}: {value}")
    return "\n".join(lines) + "\n"


def escape(value: str) -> str:
    r"""For `--minimal`: `,` becomes `\,` and `\` becomes `\\`."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


class Printer:
    """With `minimal`, values are kept until the command has succeeded, then told in one line, newest group first."""

    def __init__(self, terminal: Terminal, minimal: bool) -> None:
        self.minimal = minimal
        self._terminal = terminal
        self._groups: list[str] = []

    async def message(self, text: str) -> None:
        """Full output only."""
        if not self.minimal:
            await self._terminal.send(Print(text))

    async def items(self, values: Sequence[str]) -> None:
        if self.minimal:
            self._groups.append(",".join(escape(value) for value in values))
        else:
            for value in values:
                await self._terminal.send(Print(value))

    async def table(self, records: Table) -> None:
        if not self.minimal:
            for record in records:
                await self._terminal.send(Print(layout(record) + "\n"))
        elif records and all(records):
            self._groups.append(",".join(escape(record[0][1]) for record in records))

    async def stderr(self, text: str) -> None:
        """A line on standard error; full output only."""
        if not self.minimal:
            await self._terminal.send(PrintStderr(text + "\n"))

    async def flush(self) -> None:
        """After success."""
        if self.minimal:
            await self._terminal.send(Print(",".join(reversed(self._groups))))
