"""All commands: the written ones, those generated from the record classes, and those that are still to be written."""

from __future__ import annotations

from services.cli.commands import (
    blobs,
    callers,
    clusters,
    data_sources,
    database,
    devices,
    diagnostics,
    directory,
    disk_files,
    drives,
    history,
    host_upkeep,
    hosts,
    networks,
    pool_upkeep,
    pools,
    recovery,
    storage,
    unwritten,
    updates,
    vm_copies,
    vm_disks,
    vm_files,
    vm_lifecycle,
    vm_settings,
)
from services.cli.records import RECORDS
from services.cli.server.command import Command, table
from services.cli.server.fields import generated


def command_table() -> dict[str, Command]:
    """By name."""
    return table(
        vm_lifecycle.COMMANDS,
        vm_copies.COMMANDS,
        vm_disks.COMMANDS,
        vm_settings.COMMANDS,
        drives.COMMANDS,
        storage.COMMANDS,
        networks.COMMANDS,
        hosts.COMMANDS,
        host_upkeep.COMMANDS,
        pools.COMMANDS,
        pool_upkeep.COMMANDS,
        database.COMMANDS,
        devices.COMMANDS,
        data_sources.COMMANDS,
        diagnostics.COMMANDS,
        history.COMMANDS,
        blobs.COMMANDS,
        vm_files.COMMANDS,
        disk_files.COMMANDS,
        callers.COMMANDS,
        clusters.COMMANDS,
        recovery.COMMANDS,
        directory.COMMANDS,
        updates.COMMANDS,
        unwritten.COMMANDS,
        *(generated(records) for records in RECORDS.values()),
    )
