"""The pool's database: to a file of the client's, and from one."""

from __future__ import annotations

from typing import Final

from services.cli.protocol import HttpGet, HttpPut
from services.cli.server.command import Call, command
from services.cli.server.failures import CommandError
from services.cli.server.transfers import transfer

PATH: Final = "/pool/xmldbdump"
RESTART: Final = 30.0
"""Seconds from a restore to the start of the toolstack anew."""


async def _dump(call: Call) -> None:
    await transfer(call, HttpGet, "Database dump", PATH, {}, call.params["file-name"])


async def _restore(call: Call) -> None:
    """Both flags count by being there: `dry-run=false` is a dry run."""
    dry = "dry-run" in call.params
    if not dry and "force" not in call.params:
        raise CommandError(
            "The pool will go on with the database of the file and forget its other hosts: that takes --force"
        )
    query = {"dry_run": str(dry).lower()}
    await transfer(call, HttpPut, "Database restore", PATH, query, call.params["file-name"])
    if dry:
        await call.printer.items(["The database can be restored; nothing was changed"])
    else:
        await call.printer.items([f"The toolstack starts again with the restored database in {RESTART:.0f} seconds"])


COMMANDS = (
    command(
        "pool-dump-database", _dump, "Writes the pool's database to a file.", required="file-name", flags="With_fd"
    ),
    command(
        "pool-restore-database",
        _restore,
        "Has the pool go on with a database that was dumped before.",
        required="file-name",
        optional="dry-run",
        flags="With_fd",
    ),
)
