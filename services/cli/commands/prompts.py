"""Questions before something is lost."""

from __future__ import annotations

from typing import Final

from services.cli.protocol import Print
from services.cli.server.command import Call

FORCE_NEEDED: Final = (
    "This operation is dangerous and may cause data loss. This operation must be forced (use --force)."
)


async def confirmed(call: Call) -> bool:
    """Did the user type `yes`? Says so if not; that is no failure."""
    await call.terminal.send(Print("Type 'yes' to continue"))
    answer = await call.terminal.prompt()
    if answer.strip().lower() == "yes":
        return True
    await call.terminal.send(Print(f"Aborted (you typed: '{answer}')"))
    return False
