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
    "",
    since="cowley, deprecated clearwater, removed clearwater",
    roles=POOL_OPERATOR,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("VMPP"),
        rw("is_policy_enabled", BOOL, "", True),
        rw("backup_type", VMPP_BACKUP_TYPE, "", "snapshot"),
        static("backup_retention_value", INT, "", 7),
        static("backup_frequency", VMPP_BACKUP_FREQUENCY, "", "daily"),
        static("backup_schedule", STRING_MAP, "", EMPTY),
        runtime("is_backup_running", BOOL, ""),
        runtime("backup_last_run_time", DATETIME, "", EMPTY),
        static("archive_target_type", VMPP_ARCHIVE_TARGET_TYPE, "", "none"),
        static("archive_target_config", STRING_MAP, "", EMPTY),
        static("archive_frequency", VMPP_ARCHIVE_FREQUENCY, "", "never"),
        static("archive_schedule", STRING_MAP, "", EMPTY),
        runtime("is_archive_running", BOOL, ""),
        runtime("archive_last_run_time", DATETIME, "", EMPTY),
        maintained("VMs", "VM.protection_policy", ""),
        static("is_alarm_enabled", BOOL, "", EMPTY),
        static("alarm_config", STRING_MAP, "", EMPTY),
        runtime("recent_alerts", STRING_SET, "", EMPTY),
    ],
    messages=[
        message("protect_now", "", {"vmpp": refs.VMPP}, STRING, sync_only=True),
        message("archive_now", "", {"snapshot": refs.VM}, STRING, roles=VM_POWER_ADMIN, sync_only=True),
        message(
            "create_alert",
            "",
            {"vmpp": refs.VMPP, "name": STRING, "priority": INT, "body": STRING, "data": STRING},
            roles=LOCAL_ONLY,
            sync_only=True,
            hidden=True,
        ),
        message("get_alerts", "", {"vmpp": refs.VMPP, "hours_from_now": INT}, STRING_SET, sync_only=True),
        message("set_backup_retention_value", "", {"self": refs.VMPP, "value": INT}, sync_only=True),
        message(
            "set_is_backup_running",
            "",
            {"self": refs.VMPP, "value": BOOL},
            roles=LOCAL_ONLY,
            sync_only=True,
            hidden=True,
        ),
        message(
            "set_is_archive_running",
            "",
            {"self": refs.VMPP, "value": BOOL},
            roles=LOCAL_ONLY,
            sync_only=True,
            hidden=True,
        ),
        message("set_backup_frequency", "", {"self": refs.VMPP, "value": VMPP_BACKUP_FREQUENCY}, sync_only=True),
        message("set_backup_schedule", "", {"self": refs.VMPP, "value": STRING_MAP}, sync_only=True),
        message("set_archive_frequency", "", {"self": refs.VMPP, "value": VMPP_ARCHIVE_FREQUENCY}, sync_only=True),
        message("set_archive_schedule", "", {"self": refs.VMPP, "value": STRING_MAP}, sync_only=True),
        message("set_archive_target_type", "", {"self": refs.VMPP, "value": VMPP_ARCHIVE_TARGET_TYPE}, sync_only=True),
        message("set_archive_target_config", "", {"self": refs.VMPP, "value": STRING_MAP}, sync_only=True),
        message("set_is_alarm_enabled", "", {"self": refs.VMPP, "value": BOOL}, sync_only=True),
        message("set_alarm_config", "", {"self": refs.VMPP, "value": STRING_MAP}, sync_only=True),
        message("add_to_backup_schedule", "", {"self": refs.VMPP, "key": STRING, "value": STRING}, sync_only=True),
        message(
            "add_to_archive_target_config", "", {"self": refs.VMPP, "key": STRING, "value": STRING}, sync_only=True
        ),
        message("add_to_archive_schedule", "", {"self": refs.VMPP, "key": STRING, "value": STRING}, sync_only=True),
        message("add_to_alarm_config", "", {"self": refs.VMPP, "key": STRING, "value": STRING}, sync_only=True),
        message("remove_from_backup_schedule", "", {"self": refs.VMPP, "key": STRING}, sync_only=True),
        message("remove_from_archive_target_config", "", {"self": refs.VMPP, "key": STRING}, sync_only=True),
        message("remove_from_archive_schedule", "", {"self": refs.VMPP, "key": STRING}, sync_only=True),
        message("remove_from_alarm_config", "", {"self": refs.VMPP, "key": STRING}, sync_only=True),
        message(
            "set_backup_last_run_time", "", {"self": refs.VMPP, "value": DATETIME}, roles=LOCAL_ONLY, sync_only=True
        ),
        message(
            "set_archive_last_run_time", "", {"self": refs.VMPP, "value": DATETIME}, roles=LOCAL_ONLY, sync_only=True
        ),
    ],
)

VMSS = declare(
    "VMSS",
    "",
    since="falcon",
    roles=POOL_OPERATOR,
    default_ctor_dtor=True,
    fields=[
        uuid(since="rio"),
        names("VMSS", since="rio"),
        rw("enabled", BOOL, "", True, since="rio"),
        static("type", VMSS_TYPE, "", since="rio"),
        static("retained_snapshots", INT, "", 7, since="rio"),
        static("frequency", VMSS_FREQUENCY, "", since="rio"),
        static("schedule", STRING_MAP, "", EMPTY, since="rio"),
        runtime("last_run_time", DATETIME, "", EMPTY, since="rio"),
        maintained("VMs", "VM.snapshot_schedule", "", since="rio"),
    ],
    messages=[
        message("snapshot_now", "", {"vmss": refs.VMSS}, STRING, sync_only=True),
        message("set_retained_snapshots", "", {"self": refs.VMSS, "value": INT}, sync_only=True),
        message("set_frequency", "", {"self": refs.VMSS, "value": VMSS_FREQUENCY}, sync_only=True),
        message("set_schedule", "", {"self": refs.VMSS, "value": STRING_MAP}, sync_only=True),
        message("add_to_schedule", "", {"self": refs.VMSS, "key": STRING, "value": STRING}, sync_only=True),
        message("remove_from_schedule", "", {"self": refs.VMSS, "key": STRING}, sync_only=True),
        message("set_last_run_time", "", {"self": refs.VMSS, "value": DATETIME}, roles=LOCAL_ONLY, sync_only=True),
        message("set_type", "", {"self": refs.VMSS, "value": VMSS_TYPE}, sync_only=True),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    VMPP,
    VMSS,
)
