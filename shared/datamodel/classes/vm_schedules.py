"""Policies that take snapshots of VMs by the clock."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UUID,
    ClassDecl,
    declare,
    maintained,
    message,
    names,
    runtime,
    rw,
    static,
    uuid,
)
from shared.datamodel.roles import LOCAL_ONLY, POOL_OPERATOR, VM_POWER_ADMIN
from shared.datamodel.types import BOOL, DATETIME, INT, STRING, STRING_MAP, STRING_SET, EnumType

VMPP_ARCHIVE_FREQUENCY = EnumType(
    "vmpp_archive_frequency",
    (
        "never",
        "always_after_backup",
        "daily",
        "weekly",
    ),
)
VMPP_ARCHIVE_TARGET_TYPE = EnumType(
    "vmpp_archive_target_type",
    (
        "none",
        "cifs",
        "nfs",
    ),
)
VMPP_BACKUP_FREQUENCY = EnumType(
    "vmpp_backup_frequency",
    (
        "hourly",
        "daily",
        "weekly",
    ),
)
VMPP_BACKUP_TYPE = EnumType(
    "vmpp_backup_type",
    (
        "snapshot",
        "checkpoint",
    ),
)
VMSS_FREQUENCY = EnumType(
    "vmss_frequency",
    (
        "hourly",
        "daily",
        "weekly",
    ),
)
VMSS_TYPE = EnumType(
    "vmss_type",
    (
        "snapshot",
        "checkpoint",
        "snapshot_with_quiesce",
    ),
)

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
        message(
            "set_backup_retention_value",
            "Sets how many snapshots are kept.",
            {"self": refs.VMPP, "value": INT},
            sync_only=True,
        ),
        message(
            "set_is_backup_running",
            "Says whether snapshots are being taken.",
            {"self": refs.VMPP, "value": BOOL},
            roles=LOCAL_ONLY,
            sync_only=True,
            hidden=True,
        ),
        message(
            "set_is_archive_running",
            "Says whether archives are being made.",
            {"self": refs.VMPP, "value": BOOL},
            roles=LOCAL_ONLY,
            sync_only=True,
            hidden=True,
        ),
        message(
            "set_backup_frequency",
            "Sets how often snapshots are taken.",
            {"self": refs.VMPP, "value": VMPP_BACKUP_FREQUENCY},
            sync_only=True,
        ),
        message(
            "set_backup_schedule",
            "Sets at which times snapshots are taken.",
            {"self": refs.VMPP, "value": STRING_MAP},
            sync_only=True,
        ),
        message(
            "set_archive_frequency",
            "Sets how often archives are made.",
            {"self": refs.VMPP, "value": VMPP_ARCHIVE_FREQUENCY},
            sync_only=True,
        ),
        message(
            "set_archive_schedule",
            "Sets at which times archives are made.",
            {"self": refs.VMPP, "value": STRING_MAP},
            sync_only=True,
        ),
        message(
            "set_archive_target_type",
            "Sets where archives go.",
            {"self": refs.VMPP, "value": VMPP_ARCHIVE_TARGET_TYPE},
            sync_only=True,
        ),
        message(
            "set_archive_target_config",
            "Sets the archive's address and credentials.",
            {"self": refs.VMPP, "value": STRING_MAP},
            sync_only=True,
        ),
        message(
            "set_is_alarm_enabled",
            "Sets whether failures are mailed.",
            {"self": refs.VMPP, "value": BOOL},
            sync_only=True,
        ),
        message(
            "set_alarm_config",
            "Sets where failures are mailed to.",
            {"self": refs.VMPP, "value": STRING_MAP},
            sync_only=True,
        ),
        message(
            "add_to_backup_schedule",
            "Adds to the times for snapshots.",
            {"self": refs.VMPP, "key": STRING, "value": STRING},
            sync_only=True,
        ),
        message(
            "add_to_archive_target_config",
            "Adds to the archive's settings.",
            {"self": refs.VMPP, "key": STRING, "value": STRING},
            sync_only=True,
        ),
        message(
            "add_to_archive_schedule",
            "Adds to the times for archives.",
            {"self": refs.VMPP, "key": STRING, "value": STRING},
            sync_only=True,
        ),
        message(
            "add_to_alarm_config",
            "Adds to the mail settings.",
            {"self": refs.VMPP, "key": STRING, "value": STRING},
            sync_only=True,
        ),
        message(
            "remove_from_backup_schedule",
            "Removes from the times for snapshots.",
            {"self": refs.VMPP, "key": STRING},
            sync_only=True,
        ),
        message(
            "remove_from_archive_target_config",
            "Removes from the archive's settings.",
            {"self": refs.VMPP, "key": STRING},
            sync_only=True,
        ),
        message(
            "remove_from_archive_schedule",
            "Removes from the times for archives.",
            {"self": refs.VMPP, "key": STRING},
            sync_only=True,
        ),
        message(
            "remove_from_alarm_config",
            "Removes from the mail settings.",
            {"self": refs.VMPP, "key": STRING},
            sync_only=True,
        ),
        message(
            "set_backup_last_run_time",
            "Says when snapshots were last taken.",
            {"self": refs.VMPP, "value": DATETIME},
            roles=LOCAL_ONLY,
            sync_only=True,
        ),
        message(
            "set_archive_last_run_time",
            "Says when archives were last made.",
            {"self": refs.VMPP, "value": DATETIME},
            roles=LOCAL_ONLY,
            sync_only=True,
        ),
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
        message(
            "set_retained_snapshots",
            "Sets how many snapshots are kept.",
            {"self": refs.VMSS, "value": INT},
            sync_only=True,
        ),
        message(
            "set_frequency",
            "Sets how often snapshots are taken.",
            {"self": refs.VMSS, "value": VMSS_FREQUENCY},
            sync_only=True,
        ),
        message(
            "set_schedule",
            "Sets at which times snapshots are taken.",
            {"self": refs.VMSS, "value": STRING_MAP},
            sync_only=True,
        ),
        message(
            "add_to_schedule",
            "Adds to the times for snapshots.",
            {"self": refs.VMSS, "key": STRING, "value": STRING},
            sync_only=True,
        ),
        message(
            "remove_from_schedule",
            "Removes from the times for snapshots.",
            {"self": refs.VMSS, "key": STRING},
            sync_only=True,
        ),
        message(
            "set_last_run_time",
            "Says when snapshots were last taken.",
            {"self": refs.VMSS, "value": DATETIME},
            roles=LOCAL_ONLY,
            sync_only=True,
        ),
        message(
            "set_type", "Sets what kind of snapshot is taken.", {"self": refs.VMSS, "value": VMSS_TYPE}, sync_only=True
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    VMPP,
    VMSS,
)
