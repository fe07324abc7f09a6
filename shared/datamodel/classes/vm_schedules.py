"""Policies that take snapshots of VMs by the clock."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    ClassDecl,
    adder,
    declare,
    maintained,
    message,
    remover,
    runtime,
    rw,
    setter,
    static,
)
from shared.datamodel.groups import UUID, names, uuid
from shared.datamodel.roles import LOCAL_ONLY, POOL_OPERATOR, VM_POWER_ADMIN
from shared.datamodel.types import BOOL, DATETIME, INT, STRING, STRING_MAP, STRING_SET, EnumType

VMPP_ARCHIVE_FREQUENCY = EnumType("vmpp_archive_frequency", ("never", "always_after_backup", "daily", "weekly"))
VMPP_ARCHIVE_TARGET_TYPE = EnumType("vmpp_archive_target_type", ("none", "cifs", "nfs"))
VMPP_BACKUP_FREQUENCY = EnumType("vmpp_backup_frequency", ("hourly", "daily", "weekly"))
VMPP_BACKUP_TYPE = EnumType("vmpp_backup_type", ("snapshot", "checkpoint"))
VMSS_FREQUENCY = EnumType("vmss_frequency", ("hourly", "daily", "weekly"))
VMSS_TYPE = EnumType("vmss_type", ("snapshot", "checkpoint", "snapshot_with_quiesce"))

VMPP = declare(
    "VMPP",
    "A protection policy: snapshots and archives by the clock. Policies of this kind are gone.",
    since="cowley, deprecated clearwater, removed clearwater",
    roles=POOL_OPERATOR,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("protection policy"),
        rw("is_policy_enabled", BOOL, "Whether it is in force.", True),
        rw("backup_type", VMPP_BACKUP_TYPE, "Whether snapshots include memory.", "snapshot"),
        static("backup_retention_value", INT, "How many snapshots of each VM are kept.", 7),
        static("backup_frequency", VMPP_BACKUP_FREQUENCY, "How often snapshots are taken.", "daily"),
        static("backup_schedule", STRING_MAP, "At which times snapshots are taken.", EMPTY),
        runtime("is_backup_running", BOOL, "Whether snapshots are being taken."),
        runtime("backup_last_run_time", DATETIME, "When snapshots were last taken.", EMPTY),
        static("archive_target_type", VMPP_ARCHIVE_TARGET_TYPE, "Where archives go.", "none"),
        static("archive_target_config", STRING_MAP, "Address and credentials of the archive.", EMPTY),
        static("archive_frequency", VMPP_ARCHIVE_FREQUENCY, "How often archives are made.", "never"),
        static("archive_schedule", STRING_MAP, "At which times archives are made.", EMPTY),
        runtime("is_archive_running", BOOL, "Whether archives are being made."),
        runtime("archive_last_run_time", DATETIME, "When archives were last made.", EMPTY),
        maintained("VMs", "VM.protection_policy", "VMs that follow it."),
        static("is_alarm_enabled", BOOL, "Whether failures are mailed.", EMPTY),
        static("alarm_config", STRING_MAP, "Where failures are mailed to.", EMPTY),
        runtime("recent_alerts", STRING_SET, "What it reported lately.", EMPTY),
    ],
    messages=[
        message("protect_now", "Takes snapshots now.", {"vmpp": refs.VMPP}, STRING, sync_only=True),
        message(
            "archive_now",
            "Archives a snapshot now.",
            {"snapshot": refs.VM},
            STRING,
            roles=VM_POWER_ADMIN,
            sync_only=True,
        ),
        message(
            "create_alert",
            "Reports on a run.",
            {"vmpp": refs.VMPP, "name": STRING, "priority": INT, "body": STRING, "data": STRING},
            roles=LOCAL_ONLY,
            sync_only=True,
            hidden=True,
        ),
        message(
            "get_alerts",
            "Reports of the last hours.",
            {"vmpp": refs.VMPP, "hours_from_now": INT},
            STRING_SET,
            sync_only=True,
        ),
        setter("backup_retention_value", "Sets how many snapshots are kept.", sync_only=True),
        setter(
            "is_backup_running",
            "Says whether snapshots are being taken.",
            roles=LOCAL_ONLY,
            sync_only=True,
            hidden=True,
        ),
        setter(
            "is_archive_running", "Says whether archives are being made.", roles=LOCAL_ONLY, sync_only=True, hidden=True
        ),
        setter("backup_frequency", "Sets how often snapshots are taken.", sync_only=True),
        setter("backup_schedule", "Sets at which times snapshots are taken.", sync_only=True),
        setter("archive_frequency", "Sets how often archives are made.", sync_only=True),
        setter("archive_schedule", "Sets at which times archives are made.", sync_only=True),
        setter("archive_target_type", "Sets where archives go.", sync_only=True),
        setter("archive_target_config", "Sets the archive's address and credentials.", sync_only=True),
        setter("is_alarm_enabled", "Sets whether failures are mailed.", sync_only=True),
        setter("alarm_config", "Sets where failures are mailed to.", sync_only=True),
        adder("backup_schedule", "Adds to the times for snapshots.", sync_only=True),
        adder("archive_target_config", "Adds to the archive's settings.", sync_only=True),
        adder("archive_schedule", "Adds to the times for archives.", sync_only=True),
        adder("alarm_config", "Adds to the mail settings.", sync_only=True),
        remover("backup_schedule", "Removes from the times for snapshots.", sync_only=True),
        remover("archive_target_config", "Removes from the archive's settings.", sync_only=True),
        remover("archive_schedule", "Removes from the times for archives.", sync_only=True),
        remover("alarm_config", "Removes from the mail settings.", sync_only=True),
        setter("backup_last_run_time", "Says when snapshots were last taken.", roles=LOCAL_ONLY, sync_only=True),
        setter("archive_last_run_time", "Says when archives were last made.", roles=LOCAL_ONLY, sync_only=True),
    ],
)

VMSS = declare(
    "VMSS",
    "A schedule that VMs' snapshots are taken by.",
    since="falcon",
    roles=POOL_OPERATOR,
    default_ctor_dtor=True,
    fields=[
        uuid(since="rio"),
        names("snapshot schedule", since="rio"),
        rw("enabled", BOOL, "Whether it is in force.", True, since="rio"),
        static("type", VMSS_TYPE, "What kind of snapshot is taken.", since="rio"),
        static("retained_snapshots", INT, "How many snapshots of each VM are kept.", 7, since="rio"),
        static("frequency", VMSS_FREQUENCY, "How often snapshots are taken.", since="rio"),
        static("schedule", STRING_MAP, "At which minute, hour and days snapshots are taken.", EMPTY, since="rio"),
        runtime("last_run_time", DATETIME, "When snapshots were last taken.", EMPTY, since="rio"),
        maintained("VMs", "VM.snapshot_schedule", "VMs that follow it.", since="rio"),
    ],
    messages=[
        message("snapshot_now", "Takes the snapshots now.", {"vmss": refs.VMSS}, STRING, sync_only=True),
        setter("retained_snapshots", "Sets how many snapshots are kept.", since="falcon", sync_only=True),
        setter("frequency", "Sets how often snapshots are taken.", since="falcon", sync_only=True),
        setter("schedule", "Sets at which times snapshots are taken.", since="falcon", sync_only=True),
        adder("schedule", "Adds to the times for snapshots.", since="falcon", sync_only=True),
        remover("schedule", "Removes from the times for snapshots.", since="falcon", sync_only=True),
        setter(
            "last_run_time", "Says when snapshots were last taken.", since="falcon", roles=LOCAL_ONLY, sync_only=True
        ),
        setter("type", "Sets what kind of snapshot is taken.", since="falcon", sync_only=True),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (VMPP, VMSS)
